"""Generated translations and transcripts in the place of a manifest's texts (sequence-level distillation)."""

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.generate_log import Sample, read_logs
from fairseq_knn.speech_data.joining import join
from fairseq_knn.speech_data.manifest import ID, TARGET_TEXT, TEXTS, Manifest, Row, with_column, write_manifest
from fairseq_knn.speech_data.marks import unmarked

# How fairseq prints an unknown symbol of a reference.
_UNKNOWN = "<<unk>>"
_SUBWORD_MARK = re.compile(r"@@ |▁")


@dataclass
class Replacement:
    """What one column was replaced by.

    Attributes:
        samples: in the logs.
        checked: how many of the references that the logs hold were compared with the manifest's texts.
        raw: how many hypotheses are of ``H-`` lines, for want of ``D-`` lines.
        blank: how many are empty.
        cut: how many hold subwords.
    """

    samples: int
    matched: int = 0
    checked: int = 0
    raw: int = 0
    blank: int = 0
    cut: int = 0


@dataclass(frozen=True)
class Replaced:
    read: int
    written: int
    columns: dict[str, Replacement]


def replace(
    manifest: Path,
    logs: Mapping[str, Sequence[Path]],
    output: Path,
    *,
    generated_from: Path | None = None,
    allow_missing: bool = False,
) -> Replaced:
    """Write a manifest with generated texts in some columns.

    Sample n of a log is row n of the split that was generated, counted from 0: so stock numbers the utterances of a
    manifest, and the lines of a text. Equal references keep their own hypotheses.

    Args:
        logs: by column (``tgt_text``, ``src_text``), logs of one run of fairseq-generate.
        generated_from: the manifest of the split that was generated, if it is another one; rows are found by id.
        allow_missing: leave out the rows of which there is no hypothesis.

    Raises:
        ConfigurationError: hypotheses are missing, or a reference is not the text of its row.
    """
    opened = Manifest(manifest)
    origin = opened if generated_from is None else Manifest(generated_from)
    ids: list[str] = []
    texts: list[dict[str, str]] = []
    for row in origin.rows():
        ids.append(row[ID])
        texts.append({column: row[column] for column in TEXTS if column in row})
    known = [row[ID] for row in opened.rows()] if origin is not opened else ids
    if origin is not opened:
        join(manifest, known, origin.path, ids, allow_missing=True)
    counts: dict[str, Replacement] = {}
    new: dict[str, dict[str, str]] = {}
    for column, paths in logs.items():
        samples = read_logs(paths)
        counts[column] = Replacement(len(samples))
        new[column] = _by_id(samples, ids, texts, column, origin.path, counts[column])
        missing = [id_ for id_ in known if id_ not in new[column]]
        if missing and not allow_missing:
            raise ConfigurationError(
                f"{' and '.join(map(str, paths))} have no hypothesis for {len(missing):,} of {len(known):,} rows of "
                f"{manifest} (the first: {missing[0]}): generate the whole split (stock drops its last "
                "sentences without --required-batch-size-multiple 1), or leave those rows out with --allow-missing"
            )

    def rows() -> Iterator[Row]:
        for row in opened.rows():
            if all(row[ID] in generated for generated in new.values()):
                yield unmarked(row, new) | {column: generated[row[ID]] for column, generated in new.items()}

    for column, generated in new.items():
        counts[column].matched = sum(id_ in generated for id_ in known)
    inputs = (manifest, origin.path, *(path for paths in logs.values() for path in paths))
    written = write_manifest(output, with_column(opened.columns, *new), rows(), inputs)
    return Replaced(len(known), written, counts)


def _by_id(
    samples: Mapping[int, Sample],
    ids: Sequence[str],
    texts: Sequence[Mapping[str, str]],
    column: str,
    origin: Path,
    counts: Replacement,
) -> dict[str, str]:
    generated = {}
    for number, sample in samples.items():
        if number >= len(ids):
            raise ConfigurationError(
                f"{sample.path} has the sample {number}, but {origin} only {len(ids):,} rows, the first of which is 0: "
                "name the manifest of the split that was generated with --generated-from"
            )
        hypothesis = sample.hypothesis
        if hypothesis is None:
            continue
        _check_reference(sample, number, ids[number], texts[number], column, origin, counts)
        counts.raw += sample.detokenised is None
        counts.blank += not hypothesis.strip()
        counts.cut += bool(_SUBWORD_MARK.search(hypothesis))
        generated[ids[number]] = hypothesis
    return generated


def _check_reference(
    sample: Sample, number: int, id_: str, texts: Mapping[str, str], column: str, origin: Path, counts: Replacement
) -> None:
    # Stock's reference is always tgt_text; of transcripts, that is the other column once the manifests are merged.
    candidates = {name: texts[name] for name in {column, TARGET_TEXT} if name in texts}
    if sample.reference is None or not candidates:
        return
    if not any(is_reference(sample.reference, text) for text in candidates.values()):
        shown = " or ".join(f"{text!r} ({name})" for name, text in sorted(candidates.items()))
        raise ConfigurationError(
            f"the reference of sample {number} in {sample.path} is {sample.reference!r}, but row {number} of {origin}, "
            f"{id_}, has {shown}: name the manifest of the split that was generated with --generated-from"
        )
    counts.checked += 1


def is_reference(reference: str, text: str) -> bool:
    """Whether a reference that fairseq printed can be of a manifest's text.

    Letters and digits are compared, for tokenisation, subwords, escapes, punctuation and normal forms may have come and
    gone between the two; an unknown symbol may have been anything.
    """
    first, *others = [_key(part) for part in reference.split(_UNKNOWN)]
    key = _key(text)
    if not others:
        return key == first
    *between, last = others
    if not key.startswith(first) or not key.endswith(last):
        return False
    place, end = len(first), len(key) - len(last)
    for part in between:
        found = key.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return place <= end


def _key(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", html.unescape(text)).casefold()))
