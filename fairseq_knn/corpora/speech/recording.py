"""From sentences to features and manifests: read aloud by a voice, or by the actors of a game."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.speech import fish_fillets
from fairseq_knn.corpora.speech.archive import FeatureArchive, Row, manifest
from fairseq_knn.corpora.speech.debian import NotAvailable, fetch_deb
from fairseq_knn.corpora.speech.espeak import Voice
from fairseq_knn.corpora.speech.features import at_rate, filter_banks, one_thread

RATE = 22050  # samples a second: the voice's, and that of most of the dialogue
# A fast reader: a third less to compute from than at the usual 175.
_WORDS_PER_MINUTE = 290
_BATCH = 500  # sentences read between two lines of progress


def read_aloud(
    parts: Mapping[str, Sequence[Pair]], voice: str, directory: Path, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Write ``speech.zip`` and a manifest ``SPLIT.tsv`` for every set.

    Args:
        parts: what is read, by split.
        voice: that reads.
        directory: to write to.
        report: called with lines of progress.

    Returns:
        What there is in every file.

    Raises:
        UserError: espeakng-loader is not installed.
    """
    sizes: dict[str, dict[str, Any]] = {}
    reader = Voice(voice, _WORDS_PER_MINUTE)
    try:
        with one_thread(), FeatureArchive(directory / "speech.zip", "speech.zip") as archive:
            for split, pairs in parts.items():
                rows = []
                for number, (pair, samples) in enumerate(_read(reader, pairs)):
                    features = filter_banks(at_rate(samples, reader.rate, RATE), RATE)
                    rows.append(_row(archive, f"{split}-{number}", features, pair, "espeak-ng"))
                    if len(rows) % (8 * _BATCH) == 0:
                        report(f"{split}: {len(rows):,} of {len(pairs):,} sentences read aloud")
                sizes[f"{split}.tsv"] = _write(directory / f"{split}.tsv", rows)
    finally:
        reader.close()
    sizes["speech.zip"] = _total(sizes.values())
    return sizes


def act_out(
    wanted: Callable[[Iterable[Pair]], list[Pair]], directory: Path, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Write ``real.zip`` and ``real.tsv``, acted dialogue; nothing where Debian's packages cannot be had.

    Args:
        wanted: chooses among all lines that have a recording.
        directory: to write to.
        report: called with lines of progress.

    Returns:
        What there is in every file.
    """
    try:
        paths = [fetch_deb(deb, report) for deb in fish_fillets.DEBS]
    except NotAvailable as reason:
        report(f"there will be no real.tsv, a second test with acted speech: it is in packages of Debian, and {reason}")
        return {}
    report(f"licence of the acted speech: {fish_fillets.LICENCE}")
    acted = {one.id: one for one in fish_fillets.recordings(paths)}
    rows = []
    with one_thread(), FeatureArchive(directory / "real.zip", "real.zip") as archive:
        for pair in wanted(Pair(one.id, one.transcript, one.translation) for one in acted.values()):
            samples = at_rate(acted[pair.key].samples, acted[pair.key].rate, RATE)
            rows.append(_row(archive, f"real-{pair.key}", filter_banks(samples, RATE), pair, "actors"))
    sizes = _write(directory / "real.tsv", rows)
    return {"real.tsv": sizes, "real.zip": sizes}


def _read(voice: Voice, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, NDArray[np.int16]]]:
    """The sentences and their samples, in order; a thread of its own reads the next ones meanwhile."""
    batches = [pairs[start : start + _BATCH] for start in range(0, len(pairs), _BATCH)]
    with ThreadPoolExecutor(1) as thread:
        heard = None
        for batch in [*batches, ()]:
            following = thread.submit(_samples, voice, batch)
            if heard is not None:
                yield from heard.result()
            heard = following


def _samples(voice: Voice, pairs: Sequence[Pair]) -> list[tuple[Pair, NDArray[np.int16]]]:
    return [(pair, voice.say(pair.source)) for pair in pairs]


def _row(archive: FeatureArchive, identifier: str, features: NDArray[np.float32], pair: Pair, speaker: str) -> Row:
    return Row(
        id=identifier,
        audio=archive.add(identifier, features),
        n_frames=len(features),
        tgt_text=pair.target,
        speaker=speaker,
        src_text=pair.source,
    )


def _write(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    path.write_text(manifest(rows), encoding="utf-8")
    return {"recordings": len(rows), "minutes": round(sum(row.n_frames for row in rows) / 6000, 1)}


def _total(sizes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    every = list(sizes)
    return {
        "recordings": sum(one["recordings"] for one in every),
        "minutes": round(sum(one["minutes"] for one in every), 1),
    }
