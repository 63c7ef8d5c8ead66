"""What is written into a cache of retrievals is read from it, and nothing else."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.retrieval import cache
from fairseq_knn.retrieval.cache import RetrievalCache
from tests import toy

SHARD, SENTENCES = 3, 8
LENGTHS = np.array([2, 0, 3, 1, 4, 0, 2, 1])  # the second and the sixth were left out
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
PLAN = {"model": "a" * 64, "k": 2}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SHARD_SENTENCES", SHARD)


def rows() -> dict[str, np.ndarray]:
    """Arrays of every kind that is kept, one row for every token; their bytes do not end where others may begin."""
    rng = np.random.default_rng(1)
    n = STARTS[-1]
    return {
        "query": rng.normal(size=(n, 3)).astype(np.float16),
        "ids": rng.integers(0, 2**40, size=(n, 2)),
        "columns": rng.integers(-1, 9, size=(n, 1)).astype(np.int16),
        "rest": rng.normal(size=n).astype(np.float32),
        "others": rng.integers(0, 99, size=n).astype(np.int32),
    }


def fill(kept: RetrievalCache, shards: list[int] | None = None) -> None:
    for shard in kept.pending() if shards is None else shards:
        first, last = kept.sentence_range(shard)
        part = slice(STARTS[first], STARTS[last])
        kept.write(shard, LENGTHS[first:last], {name: array[part] for name, array in rows().items()})


def opened(path: Path) -> RetrievalCache:
    return RetrievalCache(path, PLAN, SENTENCES)


def read(kept: RetrievalCache, sentences: list[int]) -> dict[str, np.ndarray]:
    return kept.read(np.array(sentences), LENGTHS[sentences])


@pytest.mark.parametrize("limit", [256, 1])
def test_rows_come_in_the_order_that_is_asked_for(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_OPEN_SHARDS", limit)
    kept = opened(tmp_path)
    assert not kept.complete
    fill(kept)
    assert kept.complete
    for sentences in ([0, 1, 2], [7, 0, 4, 2, 6, 3], [4], [1, 5], [5, 6], [2, 2, 7, 2]):
        found = read(opened(tmp_path), sentences)
        places = np.concatenate([np.arange(STARTS[i], STARTS[i + 1]) for i in sentences])
        for name, array in rows().items():
            np.testing.assert_array_equal(found[name], array[places])
            assert found[name].dtype == array.dtype
            assert found[name].flags.writeable  # torch warns about tensors of memory that must not be written


def test_processes_share_the_shards(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    assert [kept.pending(rank, 2) for rank in range(2)] == [[0, 2], [1]]
    fill(kept, kept.pending(1, 2))
    assert kept.pending() == [0, 2]
    assert kept.pending(1, 2) == []


def test_an_interrupted_run_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    fill(opened(tmp_path / "whole"))
    fill(opened(tmp_path / "parts"), [1])
    leftover = tmp_path / "parts" / ".00000.safetensors.1.part"
    leftover.write_bytes(b"half")
    long_ago = time.time() - 7200
    os.utime(leftover, (long_ago, long_ago))
    fill(opened(tmp_path / "parts"))
    assert toy.content(tmp_path / "parts") == toy.content(tmp_path / "whole")


def test_two_runs_may_write_the_same_shard_at_once(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    theirs = tmp_path / ".00000.safetensors.1.part"
    theirs.write_bytes(b"half")
    fill(kept)
    opened(tmp_path)
    assert theirs.exists()


def test_a_shard_of_which_every_sentence_was_left_out(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    fill(kept, [0, 2])
    kept.write(1, np.zeros(SHARD, np.int64), {})
    assert kept.complete
    np.testing.assert_array_equal(read(kept, [0, 6])["rest"], rows()["rest"][[0, 1, 10, 11]])
    with pytest.raises(UserError, match="does not hold the sentences of this split: delete it"):
        read(kept, [4])


@pytest.mark.parametrize("plan", [{**PLAN, "model": "b" * 64}, {**PLAN, "k": 3}, {**PLAN, "more": 1}])
def test_another_plan_is_refused(plan: dict[str, object], tmp_path: Path) -> None:
    fill(opened(tmp_path))
    with pytest.raises(ConfigurationError, match=r"cache of another retrieval \((model a{12}|k 2|more None),"):
        RetrievalCache(tmp_path, plan, SENTENCES)
    with pytest.raises(ConfigurationError, match="sentences 8, this run has 9"):
        RetrievalCache(tmp_path, PLAN, SENTENCES + 1)


def test_sentences_of_other_lengths_are_noticed(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    fill(kept)
    with pytest.raises(UserError, match="does not hold the sentences of this split"):
        kept.read(np.array([3, 4]), np.array([1, 5]))


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    fill(opened(tmp_path))
    path = tmp_path / "00001.safetensors"
    whole = path.read_bytes()
    damaged = [
        b"",
        whole[:5],
        whole[:40],
        whole[:-3],
        b"\xff" * len(whole),
        whole[:8] + b"[1]" + whole[11:],
        b"\0" * 99,
    ]
    # The header's own length, and a header that lacks what every shard has.
    damaged += [b"\2" + b"\0" * 7 + b"{}", b"\2" + b"\0" * 7 + b"[]"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"00001.safetensors is missing or damaged .*: delete it, and the next run"):
            read(opened(tmp_path), [3])
    path.unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        read(opened(tmp_path), [3])
    fill(opened(tmp_path))
    assert path.read_bytes() == whole
    (tmp_path / "plan.json").write_text("[")
    with pytest.raises(UserError, match=r"plan.json is damaged"):
        opened(tmp_path)
