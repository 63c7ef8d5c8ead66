"""From a file to text: reproducible, whole or absent, and without a sentence in two splits."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairseq_knn.corpora.cleaning import comparison_key
from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.recipe.pairs import pair_store
from fairseq_knn.recipe.pairs.prepared_pairs import prepare_pairs
from fairseq_knn.recipe.pairs.splitting import SPLITS
from fairseq_knn.recipe.settings import Pairs

LANGUAGES = ("eng", "fra")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def rows(n: int = 400) -> list[tuple[str, str]]:
    """Pairs of which many share a side, in the manner of Tatoeba: the shortest first."""
    rng = random.Random(1)
    words = [f"{one}{other}" for one in NUMBERS for other in NUMBERS]
    pairs = []
    for number in range(n):
        english = f"I have {rng.choice(words)} {rng.choice(words)}s."
        french = f"j'ai {rng.choice(words)} {'très ' * (number % 3)}{rng.choice(words)}."
        pairs.append((english, french))
        if number % 4 == 0:
            pairs.append((english.lower().replace(".", " !"), f"Moi, {french}"))
    return sorted(pairs, key=lambda pair: len(pair[0]))


def write_rows(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{english}\t{french}\tCC-BY\n" for english, french in pairs), encoding="utf-8")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Pairs:
    file = write_rows(tmp_path / "fra.txt", rows())
    return Pairs(file=str(file), directory=str(tmp_path / "pairs"), valid=30, test=40)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.*"))}


def silent(_: str) -> None:
    pass


def test_no_sentence_is_in_two_splits_and_every_pair_is_in_one(settings: Pairs) -> None:
    prepared = prepare_pairs(settings, silent)
    assert prepared.counts == {"train": 430, "valid": 30, "test": 40}
    text = {
        name: [prepared.path(name, language).read_text("utf-8").splitlines() for language in LANGUAGES]
        for name in SPLITS
    }
    pairs = [pair for name in SPLITS for pair in zip(*text[name], strict=True)]
    assert sorted(pairs) == sorted(rows())
    for side in range(2):
        keys = [{comparison_key(sentence) for sentence in text[name][side]} for name in SPLITS]
        assert sum(map(len, keys)) == len(set.union(*keys))


def test_text_depends_on_the_pairs_and_the_seed_not_on_order_hashes_or_place(settings: Pairs, tmp_path: Path) -> None:
    prepared = prepare_pairs(settings, silent)
    shuffled = rows()
    random.Random(7).shuffle(shuffled)
    for place in ("other", "third"):
        (tmp_path / place).mkdir()
    other = replace(
        settings,
        file=str(write_rows(tmp_path / "other" / "fra.txt", shuffled)),
        directory=str(tmp_path / "other" / "pairs"),
    )
    same = prepare_pairs(other, silent)
    for name in SPLITS:
        assert prepared.path(name, "fra").read_bytes() == same.path(name, "fra").read_bytes()
        assert prepared.path(name, "eng").read_bytes() == same.path(name, "eng").read_bytes()

    # another process, with other hashes of strings: the same bytes, record included
    script = (
        "from fairseq_knn.recipe.pairs.prepared_pairs import prepare_pairs; "
        "from fairseq_knn.recipe.settings import Pairs; "
        f"prepare_pairs(Pairs(file={settings.file!r}, directory='pairs', valid=30, test=40), print)"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "third",
        env={**os.environ, "PYTHONHASHSEED": "5", "PYTHONPATH": str(Path(__file__).parents[4])},
        check=True,
        capture_output=True,
    )
    assert contents(tmp_path / "third" / "pairs") == contents(prepared.directory)

    reseeded = prepare_pairs(replace(settings, seed=2, directory=str(tmp_path / "reseeded")), silent)
    assert reseeded.path("test", "eng").read_bytes() != prepared.path("test", "eng").read_bytes()


def test_train_is_in_random_order(settings: Pairs) -> None:
    lengths = [
        len(line) for line in prepare_pairs(settings, silent).path("train", "eng").read_text("utf-8").split("\n")
    ]
    first, last = lengths[:200], lengths[-200:]
    assert abs(sum(first) - sum(last)) / 200 < 1  # characters; in the file the difference is 6


def test_held_out_pairs_are_as_long_as_others(tmp_path: Path) -> None:
    rng = random.Random(3)
    pairs = [(f"{'word ' * rng.randint(1, 20)}{n}", f"{'mot ' * rng.randint(5, 9)}{n}") for n in range(3000)]
    settings = Pairs(
        file=str(write_rows(tmp_path / "a.tsv", pairs)), directory=str(tmp_path / "p"), valid=500, test=500
    )
    prepared = prepare_pairs(settings, silent)
    means = [len(prepared.path(name, "eng").read_text("utf-8").split()) / prepared.counts[name] for name in SPLITS]
    assert max(means) - min(means) < 1  # of 11 words


def test_what_is_left_out_is_counted_said_and_recorded(tmp_path: Path) -> None:
    pairs = [(f"sentence number {n} of many", f"phrase numéro {n} parmi d'autres") for n in range(50)]
    file = write_rows(tmp_path / "a.tsv", [*pairs, *pairs[:3], ("", "blank"), ("word " * 200, "mot " * 200)])
    with file.open("a", encoding="utf-8") as more:
        more.write("sentence\xa0number  1 of many\tphrase numéro 1 parmi d'autres\nno tab\n")
    said: list[str] = []
    prepared = prepare_pairs(Pairs(file=str(file), directory=str(tmp_path / "p"), valid=5, test=5), said.append)
    record = json.loads((prepared.directory / "text" / "pairs.json").read_text("utf-8"))
    assert record["left_out"] == {"lacking": 1, "blank": 1, "long": 1, "ratio": 0, "same": 0, "duplicate": 4}
    assert record["counts"] == {"rows": 57, "train": 40, "valid": 5, "test": 5}
    assert record["file"] == "a.tsv"
    assert str(tmp_path) not in json.dumps(record)
    lines = "\n".join(said)
    assert "a.tsv: 57 rows" in lines
    assert "left out: 1 have too few columns (the first in line 57)" in lines
    assert "left out: 4 were there before" in lines
    assert "ratio" not in lines


def test_text_that_is_there_is_reused(settings: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_pairs(settings, silent)
    monkeypatch.setattr(pair_store.PairStore, "__init__", None)
    said: list[str] = []
    assert prepare_pairs(settings, said.append) == first
    assert "is there already, of fra.txt" in said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "pairs.seed was 1 and is now 2: choose another pairs.directory, or delete"),
        ({"test": 41}, "pairs.test was 40 and is now 41"),
        ({"max_ratio": 2.5}, "pairs.max_ratio was 3.0 and is now 2.5"),
        ({"source_column": 2, "target_column": 1}, "pairs.source_column was 1 and is now 2"),
    ],
)
def test_text_of_other_settings_is_refused(settings: Pairs, change: dict[str, Any], message: str) -> None:
    before = contents(prepare_pairs(settings, silent).directory)
    with pytest.raises(ConfigurationError, match=message):
        prepare_pairs(replace(settings, **change), silent)
    assert contents(Path(str(settings.directory))) == before


def test_text_of_another_file_is_refused(settings: Pairs) -> None:
    prepare_pairs(settings, silent)
    write_rows(Path(str(settings.file)), rows(401))
    with pytest.raises(ConfigurationError, match=r"the checksum of its file was \w{64} and is now \w{64}"):
        prepare_pairs(settings, silent)


def test_text_that_was_changed_or_is_of_others_is_refused(settings: Pairs) -> None:
    prepared = prepare_pairs(settings, silent)
    path = prepared.path("valid", "fra")
    path.write_text("changed\n")
    with pytest.raises(ConfigurationError, match=r"valid\.fra is not as pairs\.json describes it"):
        prepare_pairs(settings, silent)
    (prepared.directory / "text" / "pairs.json").unlink()
    with pytest.raises(ConfigurationError, match=r"not what a recipe has made \(it has no pairs\.json\)"):
        prepare_pairs(settings, silent)


@pytest.mark.parametrize("interrupted", ["add", "write"])
def test_interrupted_run_leaves_nothing_that_is_taken_for_text(
    settings: Pairs, interrupted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = getattr(pair_store.PairStore, interrupted)
    calls = []

    def stops(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pair_store.PairStore, interrupted, stops)
        with pytest.raises(KeyboardInterrupt):
            prepare_pairs(settings, silent)
    directory = Path(str(settings.directory))
    assert not directory.exists()
    # as one that was killed leaves it
    (directory / ".text.part").mkdir(parents=True)
    (directory / ".text.part" / "train.eng").write_text("half")
    assert prepare_pairs(settings, silent).counts["test"] == 40
    assert [path.name for path in directory.iterdir()] == ["text"]


def test_checksum_that_is_asked_for_has_to_be_the_files(settings: Pairs) -> None:
    digest = prepare_pairs(settings, silent).sha256
    assert prepare_pairs(replace(settings, sha256=digest.upper()), silent).sha256 == digest
    with pytest.raises(ConfigurationError, match=rf"checksum {digest}, pairs\.sha256 is {'0' * 64}"):
        prepare_pairs(replace(settings, sha256="0" * 64), silent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "fra"}, "both fra"),
        ({"source": "en-GB"}, "pairs.source is 'en-GB'"),
        ({"target": "../fra"}, "pairs.target is '../fra'"),
        ({"source_column": 2}, "both 2"),
        ({"source_column": 0}, r"pairs.source_column is 0, but has to be at least 1 \(the first column is 1\)"),
        ({"valid": 0}, "pairs.valid is 0"),
        ({"max_words": 0}, "pairs.max_words is 0"),
        ({"max_ratio": 0.5}, "pairs.max_ratio is 0.5"),
        ({"max_ratio": float("nan")}, "pairs.max_ratio is nan"),
        ({"skip_rows": -1}, "pairs.skip_rows is -1"),
        ({"file": "absent.tsv"}, "absent.tsv, which does not exist"),
        ({"valid": 1000, "test": 1000}, r"has 500 pairs to use.*set pairs\.valid=50 pairs\.test=50"),
    ],
)
def test_settings_that_do_not_go_together(settings: Pairs, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prepare_pairs(replace(settings, **change), silent)
    assert not Path(str(settings.directory)).exists()


def test_pairs_that_all_share_a_sentence_cannot_be_split(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.tsv", [("Go.", f"Va {n} fois !") for n in range(50)])
    with pytest.raises(ConfigurationError, match="too many of its rows have a side in common"):
        prepare_pairs(Pairs(file=str(file), directory=str(tmp_path / "p"), valid=5, test=5), silent)


def test_smaller_sets_than_asked_for_are_told(tmp_path: Path) -> None:
    pairs = [(f"Sentence {n // 2}", f"Phrase {n}") for n in range(100)]
    said: list[str] = []
    settings = Pairs(file=str(write_rows(tmp_path / "a.tsv", pairs)), directory=str(tmp_path / "p"), valid=5, test=6)
    assert prepare_pairs(settings, said.append).counts == {"train": 90, "valid": 4, "test": 6}
    assert any("valid has 4 pairs, not 5" in line for line in said)


def test_directory_that_cannot_be_made_is_one_sentence(settings: Pairs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is where a directory is needed"):
        prepare_pairs(replace(settings, directory=str(tmp_path / "file" / "pairs")), silent)
