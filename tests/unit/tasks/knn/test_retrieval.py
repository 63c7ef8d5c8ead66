"""What is said of settings before anything is searched."""

from pathlib import Path

import numpy as np
import pytest

from fairseq_knn.combiners import VanillaCombiner
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.knn import retrieval
from fairseq_knn.tasks.knn.config import KnnConfig, complete, read_config
from tests.support import write_datastore


def config(**given: object) -> KnnConfig:
    return complete(read_config(KnnConfig(**given)))  # type: ignore[arg-type]


def test_one_gpu_for_each_of_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_datastore(tmp_path, np.eye(9), np.arange(9))
    monkeypatch.setattr(retrieval, "place_and_number", lambda: (1, 2))
    with pytest.raises(ConfigurationError, match=r"--knn-gpus all lets one process .* but 2 processes train"):
        retrieval.open_retriever([store], config(knn_gpus="all"), VanillaCombiner(0.5, 10.0))
    for alone in (config(), config(knn_gpus="1")):
        assert retrieval.open_retriever([store], alone, VanillaCombiner(0.5, 10.0)).k == 8


def test_no_number_of_gpus() -> None:
    with pytest.raises(ConfigurationError, match=r"--knn-gpus is '0', but must be a whole number"):
        config(knn_gpus="0")
    assert complete(KnnConfig(), {"knn_gpus": "8"}).knn_gpus == "1"  # of the machine that trained
