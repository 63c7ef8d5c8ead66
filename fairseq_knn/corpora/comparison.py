"""Whether one corpus gives away the test set of another."""

from collections.abc import Iterable
from pathlib import Path

from fairseq_knn.corpora.cleaning import comparison_key
from fairseq_knn.corpora.document import is_heading
from fairseq_knn.corpora.writer import load_manifest, names_of
from fairseq_knn.storage.atomic import explain_os_errors


def overlap(tested: Path, learned: Path) -> set[str]:
    """Find the test sentences of one corpus in the training text of another one, or of its own.

    Sentences (of documents: lines, but for headings) are compared as when corpora are split: case, punctuation,
    spacing and placeholders make no difference.

    Args:
        tested: directory of the corpus whose test set is looked at.
        learned: directory of the corpus whose training text is searched, each language both have in its own, with all
            languages it is paired with.

    Returns:
        The test sentences that occur there; none, if all is well.

    Raises:
        UserError: one of the directories holds no finished corpus.
    """
    manifests = [load_manifest(directory) for directory in (tested, learned)]
    shared: set[str] = set()
    for language in set(manifests[0]["languages"]).intersection(manifests[1]["languages"]):
        known = set(map(comparison_key, _lines(learned, names_of(manifests[1], "train", language))))
        test = _lines(tested, names_of(manifests[0], "test", language))
        shared.update(line for line in test if comparison_key(line) in known)
    return shared


def _lines(directory: Path, names: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for path in (directory / name for name in names):
        with explain_os_errors(path):
            lines += path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not is_heading(line)]
