"""Which devices search, and what is said where there are not so many."""

import pytest
import torch

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.index.devices import resolve_devices


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)


@pytest.mark.usefixtures("four_gpus")
def test_the_gpu_of_the_model_comes_first() -> None:
    assert resolve_devices("auto") == [torch.device("cuda")]
    assert resolve_devices("cuda", 3) == [torch.device("cuda", number) for number in (2, 0, 1)]
    assert resolve_devices("auto", "all") == [torch.device("cuda", number) for number in (2, 0, 1, 3)]


@pytest.mark.usefixtures("four_gpus")
def test_more_than_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"asks for 5 GPUs, but torch sees 4 here: pass --knn-gpus 4 or all"):
        resolve_devices("auto", "5")
    with pytest.raises(ConfigurationError, match=r"--knn-gpus all .* --knn-device cpu the CPU searches"):
        resolve_devices("cpu", "all")


def test_several_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_devices("auto", "1") == [torch.device("cpu")]
    with pytest.raises(ConfigurationError, match=r"--knn-gpus 2 spreads .* torch sees \d+ GPUs: leave --knn-gpus out"):
        resolve_devices("auto", 2)


@pytest.mark.parametrize("value", [0, -1, "0", "many", "1.5", ""])
def test_no_number_of_gpus(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"--knn-gpus is .* must be a whole number, at least 1, or all"):
        resolve_devices("auto", value)  # type: ignore[arg-type]
