"""What was done to the texts of a manifest already, so that nothing is done to them twice.

A column ``processed`` says it, in every row the same: ``src_text:moses src_text:subwords``. Stock fairseq ignores
columns it does not know, and whoever copies or renames the manifest takes it along. Texts from elsewhere have no such
column; tokenisation and subwords leave traces that ordinary text does not have.
"""

import re
from collections.abc import Iterable

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.manifest import Manifest, Row

COLUMN = "processed"
MOSES, SUBWORDS = "moses", "subwords"

_TRACES = {
    MOSES: re.compile(r"&(?:apos|quot|amp|lt|gt|#91|#93|#124);|(?<!\S)@-@(?!\S)"),
    SUBWORDS: re.compile(r"@@(?!\S)|▁"),
}
_EXAMPLES = {MOSES: "&apos; or @-@", SUBWORDS: "@@ or ▁"}
# Of the rows. Text that was tokenised or cut has them in far more, other text in next to none.
_TRACES_FROM = 0.01


def marks_of(row: Row) -> set[tuple[str, str]]:
    """Columns of a row and the steps that were applied to them."""
    return {(column, step) for column, _, step in (mark.partition(":") for mark in row.get(COLUMN, "").split())}


def marked(marks: Iterable[tuple[str, str]]) -> str:
    """What the column says; ``marks_of`` reads it again."""
    return " ".join(f"{column}:{step}" for column, step in sorted(marks))


def unmarked(row: Row, columns: Iterable[str]) -> Row:
    """*row* with what its column ``processed`` says about *columns* taken back, for their texts are new."""
    if COLUMN not in row:
        return row
    return row | {COLUMN: marked(mark for mark in marks_of(row) if mark[0] not in columns)}


def check_untouched(manifest: Manifest, steps: dict[str, set[str]]) -> int:
    """Make sure that a manifest's texts have not been through any of the steps, nor through a later one.

    Args:
        steps: the steps that are to be applied, by column.

    Returns:
        The number of rows.

    Raises:
        ConfigurationError: they have.
    """
    done: set[tuple[str, str]] = set()
    traces: dict[tuple[str, str], int] = {}
    rows = 0
    for row in manifest.rows():
        rows += 1
        done |= marks_of(row)
        for column in steps:
            for step, trace in _TRACES.items():
                traces[column, step] = traces.get((column, step), 0) + bool(trace.search(row[column]))
    for column, wanted in steps.items():
        # Nothing comes after subwords, so after them every step is too late.
        for step in (MOSES, SUBWORDS) if MOSES in wanted else (SUBWORDS,):
            if (column, step) in done:
                raise ConfigurationError(
                    f"{column} of {manifest.path} has been through {step} already, as its column {COLUMN} says: "
                    "process the manifest that it was made from, or leave the column out with --columns"
                )
            if traces[column, step] >= max(1, _TRACES_FROM * rows):
                raise ConfigurationError(
                    f"{column} of {manifest.path} looks as if it had been through {step} already "
                    f"({traces[column, step]:,} of {rows:,} rows hold the like of {_EXAMPLES[step]}): process the text "
                    "that it was made from, or leave the column or the step out"
                )
    return rows
