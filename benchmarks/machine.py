"""What the figures were measured on."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import faiss
import torch

import fairseq_knn


def describe() -> str:
    """Processor, cores, memory and versions, in one line."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {memory:.0f} GiB; Python {platform.python_version()}, "
        f"fairseq-fixed {version('fairseq-fixed')}, torch {torch.__version__}, faiss {faiss.__version__}, "
        f"fairseq_knn {fairseq_knn.__version__}"
    )
