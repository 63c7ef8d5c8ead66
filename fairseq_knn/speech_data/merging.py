"""Translations and transcripts of the same utterances, from two manifests into one."""

from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.joining import Join, join
from fairseq_knn.speech_data.manifest import (
    AUDIO,
    FRAMES,
    ID,
    SOURCE_TEXT,
    TARGET_TEXT,
    Manifest,
    keyed,
    with_column,
    write_manifest,
)


@dataclass(frozen=True)
class Merged:
    """What a merge read and wrote; ``blank`` rows have an empty transcript."""

    ids: Join
    written: int
    blank: int


def merge(translations: Path, transcripts: Path, output: Path, *, allow_missing: bool = False) -> Merged:
    """Write the rows of *translations* with ``tgt_text`` of *transcripts* as ``src_text``, joined on ``id``.

    Args:
        translations: a manifest whose ``tgt_text`` is the translation; its order and other columns stay.
        transcripts: one whose ``tgt_text`` is the transcript.
        allow_missing: leave out the ids that one of them lacks.

    Raises:
        ConfigurationError: an id is in one of them alone, or the same id is another utterance there.
    """
    left = Manifest(translations, AUDIO, FRAMES, TARGET_TEXT)
    right = Manifest(transcripts, AUDIO, FRAMES, TARGET_TEXT)
    if SOURCE_TEXT in left.columns:
        raise ConfigurationError(
            f"{translations} has a column {SOURCE_TEXT} already: use it as it is, or remove the column to take the "
            f"transcripts of {transcripts}"
        )
    rows, known = list(left.rows()), keyed(right.rows(), AUDIO, FRAMES, TARGET_TEXT)
    ids = join(translations, [row[ID] for row in rows], transcripts, known, allow_missing=allow_missing)
    merged = []
    for row in rows:
        if row[ID] not in known:
            continue
        audio, frames, transcript = known[row[ID]]
        for column, other in ((AUDIO, audio), (FRAMES, frames)):
            if row[column] != other:
                raise ConfigurationError(
                    f"{column} of {row[ID]} is {row[column]} in {translations}, but {other} in {transcripts}: prepare "
                    "both from the same features"
                )
        merged.append(row | {SOURCE_TEXT: transcript})
    written = write_manifest(output, with_column(left.columns, SOURCE_TEXT), merged, (translations, transcripts))
    return Merged(ids, written, sum(not row[SOURCE_TEXT].strip() for row in merged))
