"""Where search runs."""

import torch

from fairseq_knn.errors import ConfigurationError, UserError

ALL_GPUS = "all"


def resolve_device(name: str) -> torch.device:
    """The device called *name*: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.

    Raises:
        UserError: a GPU is asked for and torch sees none.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name.startswith("cuda") and not available:
        raise UserError(
            f"--knn-device {name} asks for a GPU, but torch {torch.__version__} sees none here: pass "
            "--knn-device cpu, or run where torch.cuda.is_available() is true"
        )
    return torch.device(name)


def resolve_devices(name: str, gpus: int | str = 1) -> list[torch.device]:
    """The device called *name*, or the GPUs that hold a datastore together: first the current one, that of the model.

    Args:
        name: see :func:`resolve_device`.
        gpus: how many of those that torch sees, or ``all``.

    Raises:
        ConfigurationError: *gpus* is no such number, or there are not so many.
        UserError: a GPU is asked for and torch sees none.
    """
    wanted = number_of_gpus(gpus)
    place = resolve_device(name)
    if wanted == 1:
        return [place]
    if place.type == "cpu":
        raise ConfigurationError(
            f"--knn-gpus {gpus} spreads the datastore over GPUs, but with --knn-device {name} the CPU searches here, "
            f"where torch sees {torch.cuda.device_count()} GPUs: leave --knn-gpus out, or pass --knn-device cuda on a "
            "machine with several"
        )
    visible = torch.cuda.device_count()
    if (wanted or visible) > visible:
        raise ConfigurationError(
            f"--knn-gpus {gpus} asks for {gpus} GPUs, but torch sees {visible} here: pass --knn-gpus {visible} or all, "
            "or make more of them visible (CUDA_VISIBLE_DEVICES)"
        )
    current = torch.cuda.current_device()
    numbers = [current, *(number for number in range(visible) if number != current)]
    return [torch.device("cuda", number) for number in numbers[: wanted or visible]]


def number_of_gpus(gpus: int | str) -> int | None:
    """The number that ``--knn-gpus`` names; ``None`` for ``all``.

    Raises:
        ConfigurationError: it names none.
    """
    text = str(gpus)
    if text == ALL_GPUS:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"--knn-gpus is {gpus!r}, but must be a whole number, at least 1, or {ALL_GPUS}")
    return int(text)
