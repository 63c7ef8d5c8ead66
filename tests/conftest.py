"""Fixtures that several tests share, each made once per test process."""

import os

# One thread each: several test processes share a machine, and sums do not depend on its cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def datastore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datastore of the toy domain's training data, in four shards."""
    from tests import toy

    path = tmp_path_factory.mktemp("datastore") / "train"
    assert toy.build(path, "--knn-shard-sentences", 500, split="train").status == 0
    return path


@pytest.fixture(scope="session")
def small_datastore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datastore of the toy domain's validation data, in eleven shards."""
    from tests import toy

    path = tmp_path_factory.mktemp("datastore") / "valid"
    assert toy.build(path, "--knn-shard-sentences", 20).status == 0
    return path


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint like the toy base, with other parameters."""
    from tests import toy

    return toy.perturbed_base(tmp_path_factory.mktemp("model") / "other.pt")


@pytest.fixture(scope="session")
def speech_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifests and features of the toy world of speech."""
    from tests import speech

    return speech.write(tmp_path_factory.mktemp("speech") / "data").data


@pytest.fixture(scope="session")
def speech_base(speech_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small s2t_transformer, trained with stock's task."""
    from tests import speech

    return speech.trained(tmp_path_factory.mktemp("speech_base"), speech_data)
