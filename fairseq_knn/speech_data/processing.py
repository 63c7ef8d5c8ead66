"""The texts of a manifest as a translation model reads them: normalised, tokenised, cut into its subwords."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.manifest import Manifest, Row, check_output, with_column, write_manifest
from fairseq_knn.speech_data.marks import COLUMN, MOSES, SUBWORDS, check_untouched, marked, marks_of
from fairseq_knn.speech_data.moses import Moses
from fairseq_knn.subwords import Subwords


@dataclass(frozen=True)
class Processing:
    """What is done to one column, in this order.

    Attributes:
        dictionary: symbols that the model knows; others are counted, not changed.
    """

    moses: Moses | None = None
    subwords: Subwords | None = None
    dictionary: frozenset[str] | None = None

    @property
    def steps(self) -> set[str]:
        return {step for step, does in ((MOSES, self.moses), (SUBWORDS, self.subwords)) if does is not None}

    def __call__(self, text: str) -> str:
        if self.moses is not None:
            text = self.moses(text)
        if self.subwords is not None:
            text = self.subwords.encode(text)
        return text


@dataclass
class Counts:
    """Of one column: symbols that were written, those that the dictionary lacks, rows with an empty text."""

    symbols: int = 0
    unknown: int = 0
    blank: int = 0


@dataclass(frozen=True)
class Processed:
    read: int
    written: int
    columns: dict[str, Counts]


def process(
    manifest: Path,
    output: Path,
    columns: Mapping[str, Processing],
    advance: Callable[[], object] = lambda: None,
) -> Processed:
    """Write *manifest* with some columns processed, and a column ``processed`` that says so.

    Args:
        advance: called after every row.

    Raises:
        ConfigurationError: a column has been through one of the steps before, or nothing is to be done.
    """
    check_output(output, (manifest,))
    if not all(processing.steps for processing in columns.values()):
        raise ConfigurationError("there is neither a tokeniser nor codes, so nothing to do: give one or the other")
    opened = Manifest(manifest, *columns)
    read = check_untouched(opened, {column: processing.steps for column, processing in columns.items()})
    new_marks = {(column, step) for column, processing in columns.items() for step in processing.steps}
    counts = {column: Counts() for column in columns}

    def rows() -> Iterator[Row]:
        for row in opened.rows():
            texts = {column: processing(row[column]) for column, processing in columns.items()}
            for column, processing in columns.items():
                _count(texts[column], processing.dictionary, counts[column])
            yield row | texts | {COLUMN: marked(marks_of(row) | new_marks)}
            advance()

    written = write_manifest(output, with_column(opened.columns, COLUMN), rows(), (manifest,))
    return Processed(read, written, counts)


def _count(text: str, dictionary: frozenset[str] | None, counts: Counts) -> None:
    symbols = text.split()
    counts.symbols += len(symbols)
    counts.blank += not symbols
    if dictionary is not None:
        counts.unknown += sum(symbol not in dictionary for symbol in symbols)
