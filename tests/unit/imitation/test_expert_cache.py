"""What is written into a cache of an expert's beliefs is read from it, and nothing else."""

import errno
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.imitation.beliefs import top_k
from fairseq_knn.imitation.expert_cache import ExpertCache
from fairseq_knn.imitation.expert_cache_writer import ExpertCacheWriter
from tests import toy

POSITIONS = [3, 1, 0, 4, 2]  # the third was left out
K = 2
MADE: dict[str, Any] = {"expert": "a" * 64, "data": "train", "topk": K}


def belief(sentence: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sentence)
    found = top_k(torch.randn(POSITIONS[sentence], 9, generator=generator).softmax(dim=1), K)
    return found.tokens, found.probabilities


def writer(directory: Path, **changes: Any) -> ExpertCacheWriter:
    return ExpertCacheWriter(directory, {**MADE, **changes}, POSITIONS, K)


def fill(directory: Path, order: list[int] | None = None) -> ExpertCache:
    with closing(writer(directory)) as writing:
        for sentence in writing.missing if order is None else order:
            writing.put(sentence, *belief(sentence))
        writing.finish()
    return ExpertCache.open(directory, MADE)


def unfinished(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.unfinished")


@pytest.mark.parametrize("sentences", [[0, 1, 3, 4], [4, 0], [3], [2], [1, 2, 1, 0], []])
def test_sentences_come_in_the_order_that_is_asked_for(sentences: list[int], tmp_path: Path) -> None:
    cache = fill(tmp_path / "train")
    tokens, probabilities, lengths = cache.beliefs(sentences)
    assert lengths.tolist() == [POSITIONS[sentence] for sentence in sentences]
    assert (tokens.dtype, probabilities.dtype, lengths.dtype) == (torch.int64, torch.float32, torch.int64)
    parts = [belief(sentence) for sentence in sentences] or [(torch.empty(0, K), torch.empty(0, K))]
    assert torch.equal(tokens, torch.cat([part[0] for part in parts]))
    assert torch.equal(probabilities, torch.cat([part[1] for part in parts]))  # to the last bit


def test_files_are_what_is_documented(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    assert sorted(toy.content(tmp_path)) == [
        f"train/{name}" for name in ("manifest.json", "offsets.npy", "probabilities.npy", "tokens.npy")
    ]
    arrays = {name: np.load(tmp_path / "train" / f"{name}.npy") for name in ("offsets", "tokens", "probabilities")}
    assert arrays["offsets"].tolist() == [0, 3, 4, 4, 8, 10]
    assert {name: (array.dtype, array.shape) for name, array in arrays.items()} == {
        "offsets": (np.int64, (6,)),
        "tokens": (np.int32, (10, K)),
        "probabilities": (np.float32, (10, K)),
    }
    manifest = json.loads((tmp_path / "train" / "manifest.json").read_text())
    assert manifest["made"] == {**MADE, "schema": 1}
    assert (manifest["k"], manifest["sentences"], manifest["positions"]) == (K, 5, 10)


def test_an_interrupted_run_is_completed_to_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "whole", [4, 3, 1, 0])
    parts = tmp_path / "parts"
    with closing(writer(parts)) as writing:
        assert writing.missing == [0, 1, 3, 4]
        writing.put(3, *belief(3))
        writing.put(0, *belief(0))
        writing.flush()
        writing.put(4, torch.full((2, K), 8), torch.full((2, K), 0.5))
        assert writing.missing == [1]
    assert not parts.exists()
    with closing(writer(parts)) as writing:
        assert writing.missing == [1, 4]  # what was not flushed
        with pytest.raises(ValueError, match="2 sentences are missing, 1 the first"):
            writing.finish()
    parts.mkdir()  # empty: someone has made the place
    fill(parts)
    assert toy.content(parts) == toy.content(tmp_path / "whole")
    assert not unfinished(parts).exists()


def killed(directory: Path, limit: int) -> bool:
    """Whether a run, in a process of its own, that dies before its call number *limit* to change a file has to die."""
    child = os.fork()
    if not child:
        calls = 0

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **keywords: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == limit:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)

            return call

        status = 1
        try:
            for name in ("mkdir", "open", "fsync", "pwrite", "replace", "rename", "unlink"):
                setattr(os, name, counted(getattr(os, name)))
            fill(directory)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def test_a_run_that_is_killed_is_resumed(tmp_path: Path) -> None:
    """Wherever it was."""
    fill(tmp_path / "whole")
    whole = toy.content(tmp_path / "whole")
    limit = 1
    while killed(directory := tmp_path / str(limit), limit):
        if not directory.exists():
            fill(directory)
        content = toy.content(directory)
        assert {name: content[name] for name in whole} == whole
        limit += 1
    assert limit > 25


def test_one_run_writes_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "train"
    with (
        closing(writer(directory)),
        pytest.raises(UserError, match=r"another run is making the cache .*train: wait until it is finished"),
    ):
        writer(directory)
    fill(directory)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"expert": "b" * 64}, "expert a{12}, this run has b{12}"),
        ({"topk": 3}, "topk 2, this run has 3"),
        ({"more": [1]}, r"more None, this run has \[1\]"),
    ],
)
def test_another_origin_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    directory = tmp_path / "train"
    sentence = rf"is the cache of another expert or split \({named}\): name another directory with --kd-cache, or"
    writer(directory).close()
    with pytest.raises(ConfigurationError, match=rf"\.train\.unfinished {sentence}"):
        writer(directory, **changes)
    fill(directory)
    with pytest.raises(ConfigurationError, match=rf"/train {sentence}"):
        ExpertCache.open(directory, {**MADE, **changes})


@pytest.mark.parametrize(("positions", "k"), [([3, 1, 0, 4, 3], K), ([3, 1, 1, 3, 2], K), (POSITIONS, 3)])
def test_other_sizes_are_not_resumed(positions: list[int], k: int, tmp_path: Path) -> None:
    writer(tmp_path / "train").close()
    with pytest.raises(ConfigurationError, match=r"cache of another expert or split \((positions|k) "):
        ExpertCacheWriter(tmp_path / "train", MADE, positions, k)


def test_nothing_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    (tmp_path / "file").touch()
    for name in ("train", "file"):
        with pytest.raises(ConfigurationError, match=rf"{name} is there already.*name another directory"):
            writer(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "train"]
    with pytest.raises(UserError, match="a file is where a directory is needed"):
        writer(tmp_path / "file" / "train")


def test_missing_or_unfinished_is_one_sentence(tmp_path: Path) -> None:
    directory = tmp_path / "train"
    with pytest.raises(UserError, match="holds no finished cache of an expert: run the same command again"):
        ExpertCache.open(directory, MADE)
    writer(directory).close()
    with pytest.raises(UserError, match="holds no finished cache"):
        ExpertCache.open(directory, MADE)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    directory = tmp_path / "train"
    fill(directory)
    for name in ("offsets.npy", "tokens.npy", "probabilities.npy"):
        path = directory / name
        whole = path.read_bytes()
        for content in (b"", whole[:-3], whole[:-1] + b"\x7f", b"\xff" * len(whole)):
            path.write_bytes(content)
            with pytest.raises(UserError, match=rf"{name} (has|is damaged).*: delete the directory, and it is made"):
                ExpertCache.open(directory, MADE)
        path.unlink()
        with pytest.raises(UserError, match=f"{name} is missing: delete the directory"):
            ExpertCache.open(directory, MADE)
        path.write_bytes(whole)
    made = json.loads((directory / "manifest.json").read_text())["made"]
    for content in ("[", "[]", "{}", json.dumps({"made": 1}), json.dumps({"made": made, "files": {}, "k": [1]})):
        (directory / "manifest.json").write_text(content)
        if content == json.dumps({"made": made, "files": {}, "k": [1]}):
            (directory / "tokens.npy").write_bytes(b"")
        with pytest.raises(UserError, match="is damaged"):
            ExpertCache.open(directory, MADE)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with closing(writer(tmp_path / "train")) as writing:
        with pytest.raises(ValueError, match=r"sentence 1 takes \(1, 2\), not \(3, 2\) and \(3, 2\)"):
            writing.put(1, *belief(0))
        tokens, probabilities = belief(0)
        with pytest.raises(UserError, match="NaN for sentence 0: check its checkpoint, or run without --fp16"):
            writing.put(0, tokens, probabilities * float("nan"))
        assert writing.missing == [0, 1, 3, 4]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(writer(tmp_path / "train")) as writing:
        writing.put(1, *belief(1))
        writing.flush()
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            with pytest.raises(UserError, match="no space left"):
                writing.put(0, *belief(0))
        assert writing.missing == [0, 3, 4]
    fill(tmp_path / "train")


def test_what_the_system_writes_in_parts_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    fill(tmp_path / "whole")
    monkeypatch.setattr(os, "pwrite", lambda file, block, place: pwrite(file, block[:5], place))
    fill(tmp_path / "parts")
    assert toy.content(tmp_path / "parts") == toy.content(tmp_path / "whole")
