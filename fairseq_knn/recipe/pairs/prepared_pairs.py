"""From a file of sentence pairs to ``text/{train,valid,test}.LANGUAGE``, a sentence a line."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_knn.corpora.cleaning import tidy
from fairseq_knn.corpora.wheel import sha256_of
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.pairs.fetched_pairs import fetched_pairs
from fairseq_knn.recipe.pairs.filtering import REASONS, described, fault
from fairseq_knn.recipe.pairs.pair_file import PairFile
from fairseq_knn.recipe.pairs.pair_settings import check_pairs, identity, pairs_directory
from fairseq_knn.recipe.pairs.pair_store import PairStore
from fairseq_knn.recipe.pairs.splitting import SPLITS, Indices, Keys, check_disjoint, split
from fairseq_knn.recipe.pairs.text_directory import finished, make
from fairseq_knn.recipe.settings import Pairs
from fairseq_knn.storage.atomic import directory_lock, make_directory

_TEXT = "text"


@dataclass(frozen=True)
class PreparedPairs:
    """Text that is ready to be learned from.

    Attributes:
        directory: of the pairs; the text is in ``text/`` below it.
        source, target: the languages.
        sha256: of the file it was made from.
        counts: pairs of each split.
    """

    directory: Path
    source: str
    target: str
    sha256: str
    counts: dict[str, int]

    def path(self, split: str, language: str) -> Path:
        """The file with one side of a split, a sentence a line."""
        return self.directory / _TEXT / f"{split}.{language}"


def prepare_pairs(settings: Pairs, say: Callable[[str], object]) -> PreparedPairs:
    """Read, filter and split pairs, unless that has been done.

    No sentence of valid or test, on either side, is in train or in the other; case, punctuation and spaces make no
    difference. The pairs of train are in a seeded random order: Tatoeba's files begin with the shortest sentences, and
    training shuffles within windows of pairs. What is written depends on the settings and the rows of the file alone,
    not on the order of these. An interrupted run leaves nothing that is taken for text; it starts over.

    Args:
        settings: of pairs.
        say: called with lines about what is read, left out and written.

    Raises:
        ConfigurationError: the settings do not go together, the file cannot be read, has too few pairs or another
            checksum than is asked for, or the directory holds text of other settings or another file.
        UserError: the directory cannot be written, or without a file, the package with text cannot be fetched.
    """
    check_pairs(settings)
    directory = pairs_directory(settings)
    columns = (settings.source_column, settings.target_column)
    if settings.file is not None:
        PairFile(Path(settings.file), columns)
    with _reserved(directory):
        path = fetched_pairs(settings, directory, say) if settings.file is None else Path(settings.file)
        asked = identity(settings, _checksum(path, settings.sha256))
        if (record := finished(directory / _TEXT, asked)) is not None:
            say(f"{directory / _TEXT} is there already, of {record['file']} with these settings")
        else:
            pairs = PairFile(path, columns, settings.skip_rows)
            record = make(directory / _TEXT, asked, functools.partial(_write, pairs, settings, say))
        counts = {name: record["counts"][name] for name in SPLITS}
    say(f"{directory / _TEXT}: " + ", ".join(f"{counts[name]:,} {name}" for name in SPLITS) + " pairs")
    return PreparedPairs(directory, settings.source, settings.target, record["sha256"], counts)


@contextlib.contextmanager
def _reserved(directory: Path) -> Iterator[None]:
    """Keep others from writing *directory*; if it is new and stays empty, remove it."""
    existed = directory.exists()
    make_directory(directory)
    try:
        with directory_lock(directory):
            yield
    finally:
        if not existed:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _checksum(path: Path, expected: str | None) -> str:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): mend its permissions") from error
    if expected is not None and found != expected.lower():
        raise ConfigurationError(
            f"{path} has the checksum {found}, pairs.sha256 is {expected}: name the file that the recipe was made "
            "with, or leave pairs.sha256 out"
        )
    return found


def _write(pairs: PairFile, settings: Pairs, say: Callable[[str], object], staging: Path) -> dict[str, Any]:
    """Write the text into *staging*; counts, and checksums of the files."""
    store, left_out = PairStore(staging / "kept", settings.seed), Counter[str]()
    for source, target in pairs:
        sides = tidy(source), tidy(target)
        if (reason := fault(*sides, settings.max_words, settings.max_ratio)) is None:
            store.add(*sides)
        else:
            left_out[reason] += 1
    kept = store.distinct()
    left_out.update(lacking=pairs.lacking, duplicate=len(store) - len(kept))
    say(f"{pairs.path.name}: {pairs.rows:,} rows")
    for reason in filter(left_out.__getitem__, REASONS):
        first = f" (the first in line {pairs.first_lacking})" if reason == "lacking" else ""
        say(f"  left out: {left_out[reason]:,} {described(reason, settings.max_words, settings.max_ratio)}{first}")
    parts = _split(pairs.path, settings, store.source[kept], store.target[kept], store.draws[kept], say)
    files = {}
    for name, indices in parts.items():
        paths = [staging / f"{name}.{language}" for language in (settings.source, settings.target)]
        store.write(kept[indices], *paths)
        files.update({path.name: sha256_of(path) for path in paths})
    store.remove()
    return {
        "file": pairs.path.name,
        "counts": {"rows": pairs.rows, **{name: len(indices) for name, indices in parts.items()}},
        "left_out": {reason: left_out[reason] for reason in REASONS},
        "files": files,
    }


def _split(
    path: Path, settings: Pairs, source: Keys, target: Keys, draws: Keys, say: Callable[[str], object]
) -> dict[str, Indices]:
    """Indices of the pairs of each split."""
    held_out = settings.valid + settings.test
    if 2 * held_out > len(draws):
        fewer = max(1, len(draws) // 10)
        raise ConfigurationError(
            f"{path} has {len(draws):,} pairs to use, of which pairs.valid={settings.valid} and "
            f"pairs.test={settings.test} "
            + (
                f"would be more than half: name a larger file, or set pairs.valid={fewer} pairs.test={fewer}"
                if len(draws) >= 4
                else "cannot be held out: name a larger file"
            )
        )
    parts = split(source, target, draws, settings.valid, settings.test)
    check_disjoint(parts, source, target)
    for name, asked in (("valid", settings.valid), ("test", settings.test)):
        if not len(parts[name]):
            raise ConfigurationError(
                f"no pairs of {path} can be held out (pairs.{name}={asked}) without a sentence that is in train too, "
                "because too many of its rows have a side in common: name another file, or set pairs.valid and "
                "pairs.test higher"
            )
        if len(parts[name]) < asked:
            say(
                f"  {name} has {len(parts[name]):,} pairs, not {asked:,}: the others have a sentence in common with "
                "too many pairs"
            )
    return parts
