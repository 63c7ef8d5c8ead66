"""Every difference between versions of fairseq, torch, numpy and omegaconf that this package knows of."""

import argparse
import collections
import enum
import importlib
import logging
import sys
from importlib import metadata
from typing import Any

from fairseq_knn.errors import ConfigurationError, UnsupportedVersionError

logger = logging.getLogger("fairseq_knn")

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


# What a checkpoint's arguments may name that only a fork has registered, and what fairseq has for it. A model that is
# used needs none of them.
_STOCK = {"criterion": "cross_entropy", "optimizer": "adam", "lr_scheduler": "fixed", "task": "translation"}
_COMBINER_PARAMETERS = "decoder.combiner."  # beside the model's in checkpoints of knn-box's training


def make_stock(state: dict[str, Any]) -> None:
    """Turn a checkpoint of a kNN-MT fork into one of stock fairseq, in place.

    knn-box calls its architectures ``vanilla_knn_mt@transformer_wmt19_de_en`` and the like, adaptive-knn-mt
    ``transformer_wmt19_de_en_with_datastore``; the stock architecture takes their place, and stock names that of
    criterions and the like that are not registered. Other arguments that only forks know are ignored by fairseq.

    Args:
        state: a checkpoint, with ``args`` or ``cfg``.

    Raises:
        ConfigurationError: it names an architecture that nobody has registered.
    """
    args, model = state.get("args"), (state.get("cfg") or {}).get("model")
    for settings in (args, model):
        for name in ("arch", "_name"):
            architecture = getattr(settings, name, None)
            if isinstance(architecture, str):
                stock = architecture.rpartition("@")[2].removesuffix("_with_datastore")
                if stock != architecture:
                    setattr(settings, name, stock)
    if args is None or state.get("cfg") is not None:
        return  # the forks are older than the other style
    _use_stock_names(args)
    parameters = state.get("model") or {}
    foreign = [name for name in parameters if name.startswith(_COMBINER_PARAMETERS)]
    for name in foreign:
        del parameters[name]
    if foreign:
        logger.warning(f"{len(foreign)} parameters of a combiner are left out of the checkpoint of another toolkit")


def _use_stock_names(args: argparse.Namespace) -> None:
    from fairseq.models import ARCH_MODEL_REGISTRY
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_REGISTRY

    known = {name: REGISTRIES[name]["registry"] for name in ("criterion", "optimizer", "lr_scheduler")}
    known["task"] = TASK_REGISTRY
    for name, stock in _STOCK.items():
        named = getattr(args, name, None)
        if isinstance(named, str) and named not in known[name]:
            logger.warning(f"the checkpoint names the {name} {named}, which is not registered: {stock} takes its place")
            setattr(args, name, stock)
    architecture = getattr(args, "arch", None)
    if isinstance(architecture, str) and architecture not in ARCH_MODEL_REGISTRY:
        raise ConfigurationError(
            f"the checkpoint has the architecture {architecture}, which is not registered: name the folder that "
            "registers it with --user-dir, or give it a stock one (--model-overrides \"{'arch': 'transformer'}\")"
        )


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
