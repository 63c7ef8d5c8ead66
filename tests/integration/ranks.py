"""One process of several that train together on the CPU: ``python -m tests.integration.ranks RANK WORLD PLAN``.

The plan is a JSON list of runs of fairseq-train, made one after the other, so that fairseq is imported once.
torchrun and fairseq's own way of starting processes demand GPUs; so does its default ``--ddp-backend``, for no other
reason than that it names a GPU to torch.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from fairseq.models import distributed_fairseq_model as wrapping

from fairseq_knn.retrieval import cache
from tests import toy

SHARD_SENTENCES = 40  # so that every process has some of a small split to fill a cache with


def main() -> None:
    """Train as the plan says; what was logged goes beside it."""
    rank, world, plan = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    together = (
        *("--distributed-world-size", world, "--distributed-rank", rank, "--distributed-no-spawn"),
        *("--distributed-init-method", f"file://{plan}.meeting", "--distributed-backend", "gloo"),
    )
    stock = wrapping.DistributedDataParallel

    def on_cpu(device_ids: Any, output_device: Any, **options: Any) -> Any:
        return stock(**options)

    with (
        mock.patch.object(wrapping, "DistributedDataParallel", on_cpu),
        mock.patch.object(cache, "SHARD_SENTENCES", SHARD_SENTENCES),
    ):
        for name, directory, started_from, datastore, *arguments in json.loads(plan.read_text(encoding="utf-8")):
            if started_from:
                Path(directory).mkdir(exist_ok=True)
                copy = shutil.copy(started_from, Path(directory) / f"copy{rank}.pt")
                os.replace(copy, Path(directory) / "checkpoint_last.pt")
            run = toy.train_combiner(Path(directory), datastore, *arguments, *together, epoch_checkpoints=True)
            plan.with_name(f"{name}.{rank}.log").write_text(run.log, encoding="utf-8")
            if run.status:
                sys.exit(run.status)


if __name__ == "__main__":
    main()
