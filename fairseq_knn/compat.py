"""Every difference between versions of fairseq, torch, numpy and omegaconf that this package knows of."""

import argparse
import collections
import enum
import importlib
import sys
from importlib import metadata
from typing import Any

from fairseq_knn.errors import UnsupportedVersionError

_PYTHON = ((3, 11), (3, 13))
_TORCH = ((2, 6), (2, 12))
_INSTALL = "pip install 'fairseq-fixed==0.12.3.1' 'torch>=2.11,<2.12' 'torchaudio>=2.11,<2.12'"


def check_versions() -> None:
    """Refuse an environment in which results could not be trusted.

    Raises:
        UnsupportedVersionError: Python, torch or fairseq are not among the supported versions.
    """
    if not _PYTHON[0] <= sys.version_info[:2] < _PYTHON[1]:
        raise UnsupportedVersionError(
            f"this is Python {sys.version_info.major}.{sys.version_info.minor}, fairseq_knn supports 3.11 and 3.12: "
            "make an environment with one of these"
        )
    torch_version = metadata.version("torch")
    if not _TORCH[0] <= _major_minor(torch_version) < _TORCH[1]:
        raise UnsupportedVersionError(
            f"this is torch {torch_version}, fairseq_knn supports 2.6 up to 2.11 (newer releases cannot be imported "
            f"together with torchaudio): {_INSTALL}"
        )
    fairseq_version = _fairseq_version()
    if _major_minor(fairseq_version) != (0, 12) or _patch(fairseq_version) < 3:
        raise UnsupportedVersionError(
            f"this is fairseq {fairseq_version}, fairseq_knn supports fairseq-fixed 0.12.3 (fairseq's main branch on "
            f"Python 3.11 and newer): pip uninstall fairseq, then {_INSTALL}"
        )


def _fairseq_version() -> str:
    for name in ("fairseq-fixed", "fairseq"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise UnsupportedVersionError(f"fairseq is not installed: {_INSTALL}")


def _major_minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _patch(version: str) -> int:
    digits = "".join(c for c in version.split(".")[2] if c.isdigit()) if version.count(".") > 1 else ""
    return int(digits or 0)


def allow_fairseq_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)``, the default since torch 2.6, read fairseq's checkpoints.

    They hold more than tensors: an ``argparse.Namespace`` (``args`` style, and inside ``cfg`` style), numpy
    scalars in the optimiser's history, meters, enums, and omegaconf nodes where a configuration was
    broadcast to other ranks. Only these classes are allowed; the safety stays on.
    """
    import torch

    allowed: list[Any] = [
        argparse.Namespace,
        collections.defaultdict,
        collections.OrderedDict,
        dict,
        list,
        int,
    ]
    allowed += [Any]
    allowed += _numpy_globals()
    for module, names in (
        ("omegaconf.dictconfig", ("DictConfig",)),
        ("omegaconf.listconfig", ("ListConfig",)),
        ("omegaconf.base", ("ContainerMetadata", "Metadata")),
        ("omegaconf.nodes", ("AnyNode",)),
        ("fairseq.logging.meters", ("AverageMeter", "TimeMeter", "StopwatchMeter")),
        ("fairseq.distributed.utils", ("_TensorPlaceholder",)),
    ):
        loaded = importlib.import_module(module)
        allowed += [getattr(loaded, name) for name in names]
    allowed += _fairseq_enums()
    torch.serialization.add_safe_globals(allowed)


def use_stock_architectures(state: dict[str, Any]) -> None:
    """Give a checkpoint of a kNN-MT fork the name of the stock architecture it extends, in place.

    knn-box calls them ``vanilla_knn_mt@transformer_wmt19_de_en`` and the like, adaptive-knn-mt
    ``transformer_wmt19_de_en_with_datastore``. Other arguments that only forks know are ignored by stock fairseq.

    Args:
        state: a checkpoint, with ``args`` or ``cfg``.
    """
    for settings in (state.get("args"), (state.get("cfg") or {}).get("model")):
        for name in ("arch", "_name"):
            architecture = getattr(settings, name, None)
            if isinstance(architecture, str):
                stock = architecture.rpartition("@")[2].removesuffix("_with_datastore")
                if stock != architecture:
                    setattr(settings, name, stock)


def _numpy_globals() -> list[Any]:
    """numpy's scalar and array constructors, also under the module name numpy 1 wrote them with."""
    import numpy as np
    from numpy._core import multiarray

    types = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"}
    return [
        np.ndarray,
        np.dtype,
        *types,
        multiarray.scalar,
        multiarray._reconstruct,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    ]


def _fairseq_enums() -> list[Any]:
    """Enumerations that tasks leave in a checkpoint's arguments."""
    from fairseq.data.multilingual import multilingual_utils

    return [
        item
        for item in vars(multilingual_utils).values()
        if isinstance(item, type) and issubclass(item, enum.Enum) and item is not enum.Enum
    ]
