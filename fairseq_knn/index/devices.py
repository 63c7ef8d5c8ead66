"""Where search runs."""

import torch

from fairseq_knn.errors import UserError


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
