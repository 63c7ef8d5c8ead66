"""Two processes that train together on the CPU.

Each is ``python -m tests.integration.ranks RANK WORLD PLAN``. The plan is a JSON list of runs of fairseq-train, made
one after the other, so that fairseq is imported once. torchrun and fairseq's own way of starting processes demand GPUs;
so does its default ``--ddp-backend``, for no other reason than that it names a GPU to torch.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from tests import cli

SHARD_SENTENCES = 40  # so that every process has some of a small split to fill a cache with
TIMEOUT = 500  # seconds: processes that do not agree wait for each other forever


@dataclass(frozen=True)
class Planned:
    """A run of fairseq-train.

    Args:
        name: of its logs, beside the plan.
        trainer: ``base`` (:func:`tests.toy.train`), ``combiner`` (:func:`tests.toy.train_combiner`), ``languages``
            (:func:`tests.languages.train`), ``imitation`` (:func:`tests.imitation.train`) or ``pairs``
            (:func:`tests.toy.train_pairs`).
        directory: where checkpoints go.
        given: what the trainer takes between the directory and the arguments.
        arguments: of fairseq-train.
        started_from: checkpoint to go on from; empty: none.
    """

    name: str
    trainer: str
    directory: str
    given: Sequence[Any]
    arguments: Sequence[str]
    started_from: str = ""


def together(plan: Path, runs: Sequence[Planned]) -> None:
    """Let two processes make all runs."""
    plan.write_text(json.dumps([asdict(run) for run in runs]), encoding="utf-8")
    command = [sys.executable, "-m", "tests.integration.ranks"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), "2", str(plan)],
            cwd=cli.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=TIMEOUT)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank, output in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, output[-3000:]


def main() -> None:
    """Train as the plan says; what was logged goes beside it."""
    from fairseq.models import distributed_fairseq_model as wrapping

    from fairseq_knn.retrieval import cache
    from tests import imitation, languages, speech, toy

    trainers: dict[str, Any] = {
        "base": toy.train_base,
        "combiner": lambda *arguments: toy.train_combiner(*arguments, epoch_checkpoints=True),
        "languages": languages.train,
        "pairs": toy.train_pairs,
        "imitation": lambda directory, data, *rest: imitation.train(directory, speech.World(Path(data), {}), *rest),
    }
    logging.getLogger("fairseq_knn").setLevel(logging.INFO)  # fairseq quietens all processes but the first
    rank, world, plan = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    distributed = (
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
        for one in json.loads(plan.read_text(encoding="utf-8")):
            planned = Planned(**one)
            directory = Path(planned.directory)
            if planned.started_from:
                directory.mkdir(exist_ok=True)
                copy = shutil.copy(planned.started_from, directory / f"copy{rank}.pt")
                os.replace(copy, directory / "checkpoint_last.pt")
            run = trainers[planned.trainer](directory, *planned.given, *planned.arguments, *distributed)
            plan.with_name(f"{planned.name}.{rank}.log").write_text(run.log, encoding="utf-8")
            if run.status:
                sys.exit(run.status)


if __name__ == "__main__":
    main()
