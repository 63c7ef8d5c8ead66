"""What a training needs before it can start: text, tokenizer, binarised data; each is made once and kept."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.composing import Recipe
from fairseq_knn.recipe.overlap import shared_pairs
from fairseq_knn.recipe.resolving import SPLITS

Say = Callable[[str], object]


class Preparation:
    """The steps up to the binarised data; what is asked for is made, or found as it was made before.

    Args:
        recipe: resolved and checked.
        say: gets a line about each thing that is made or reused.
    """

    def __init__(self, recipe: Recipe, say: Say) -> None:
        self.recipe = recipe
        self._settings = recipe.settings
        self._say = say

    @cached_property
    def pairs(self) -> Any:
        """The split pairs, as plain text."""
        from fairseq_knn.recipe.pairs.prepared_pairs import prepare_pairs

        return prepare_pairs(self._settings.pairs, self._say)

    @property
    def languages(self) -> tuple[str, str]:
        return self._settings.pairs.source, self._settings.pairs.target

    def text(self, split: str) -> tuple[Path, Path]:
        """Source and target of ``train``, ``valid`` or ``test``, one sentence a line.

        Raises:
            ConfigurationError: files of the user's are absent.
        """
        data = getattr(self._settings, SPLITS[split])
        if data._name == "pairs":
            source, target = self.languages
            return self.pairs.path(split, source), self.pairs.path(split, target)
        files = Path(data.source_file), Path(data.target_file)
        for side, file in zip(("source_file", "target_file"), files, strict=True):
            if not file.is_file():
                raise ConfigurationError(f"{SPLITS[split]}.{side} is {file}, but there is no such file: correct it")
        return files

    @cached_property
    def tokenizer(self) -> Any:
        """Trained on both sides of the training text."""
        from fairseq_knn.recipe.pieces.choice import make_tokenizer

        settings = self._settings.tokenizer
        path = Path(settings.path or Path(str(self._settings.pairs.directory)) / "tokenizer")
        return make_tokenizer(settings, self.recipe.extra["tokenizer"], self.text("train"), path, self._say)

    @cached_property
    def data(self) -> Path:
        """Directory of the binarised data."""
        from fairseq_knn.recipe.pieces.binarised import binarise

        texts = {split: self.text(split) for split in SPLITS}
        self._tell_overlap(texts)
        directory = Path(str(self._settings.pairs.directory)) / "binary"
        workers = max(1, self._settings.train_data.num_workers)
        return binarise(texts, self.languages, self.tokenizer, directory, workers, self._say)

    def _tell_overlap(self, texts: Mapping[str, tuple[Path, Path]]) -> None:
        """The recipe's own pairs are split so that there is none; text of the user's may be any."""
        if all(getattr(self._settings, step)._name == "pairs" for step in SPLITS.values()):
            return
        for split in ("valid", "test"):
            if shared := shared_pairs(texts["train"], texts[split]):
                self._say(
                    f"warning: {shared:,} pairs of {SPLITS[split]} have a sentence that train_data has, too: figures "
                    "on them are too good"
                )

    @property
    def sha256(self) -> str | None:
        """Of the file of pairs, where any of the data are from there."""
        used = any(getattr(self._settings, step)._name == "pairs" for step in SPLITS.values())
        return self.pairs.sha256 if used else None

    def configuration(self) -> Mapping[str, Any]:
        """That of fairseq-hydra-train."""
        from fairseq_knn.recipe.fairseq_settings import fairseq_settings

        return fairseq_settings(self.recipe, self.data, self.tokenizer.bpe)
