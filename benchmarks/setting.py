"""A model with its data and its datastore: what is measured."""

from dataclasses import dataclass
from pathlib import Path

from workflow import quote

USER_DIR = "fairseq_knn"


@dataclass(frozen=True)
class Setting:
    """One model and one datastore.

    Attributes:
        name: of the setting, in the table and in file names.
        description: of model and text, in one line.
        model: checkpoint.
        data: binarised text; ``test`` is translated, and is in no text that model or datastore have seen.
        store: datastore with an index of the kind ``auto``.
        building: binarised text whose split ``train`` is scored to measure how fast a datastore is built.
    """

    name: str
    description: str
    model: Path
    data: Path
    store: Path
    building: Path

    def generate(self, data: Path, task: str, options: str) -> str:
        """The stock command on one of the setting's texts."""
        return (
            f"fairseq-generate {quote(data)} --user-dir {USER_DIR} --task {task} --path {quote(self.model)} --cpu "
            f"--no-progress-bar --quiet {options}"
        )
