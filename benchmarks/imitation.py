"""What imitation costs: time and memory of an update against plain cross entropy on the same batch.

python -m benchmarks.imitation [--rounds 3] [--updates 6] [--sentences 16] [--words 10000]

A small speech model (s2t_transformer_s) learns on utterances of random frames with stock fairseq-train; the expert
has 6+6 layers, d = 512. Every measurement is a process of its own; the systems take turns. Memory is what an update
needs at its peak beyond what was there before the first one, plus the student's parameters: activations, gradients and
the optimiser's state, without the programs' code and the parameters of the expert. Prints a line of JSON for each
system.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from fairseq.data import Dictionary

from fairseq_knn import Datastore  # noqa: F401  # registers tasks and criterions

FRAMES, LENGTH = (400, 800), (20, 40)  # of an utterance: 4 to 8 seconds; tokens of a translation
WARM_UP = 2  # updates that are not counted
SYSTEMS = {
    "cross_entropy": ("speech_to_text", "cross_entropy"),
    "label_smoothed_cross_entropy": ("speech_to_text", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"),
    "kd": ("speech_to_text_imitkd", "kd"),
    "imit_kd, beta 1": ("speech_to_text_imitkd", "imit_kd", "--beta-schedule", "constant", "--beta-value", "1"),
    "imit_kd_CE, beta 1": ("speech_to_text_imitkd", "imit_kd_CE", "--beta-schedule", "constant", "--beta-value", "1"),
    "imit_kd, beta 0": ("speech_to_text_imitkd", "imit_kd", "--beta-schedule", "constant", "--beta-value", "0"),
    "imit_kd_CE, beta 0": ("speech_to_text_imitkd", "imit_kd_CE", "--beta-schedule", "constant", "--beta-value", "0"),
}
BASELINE = "cross_entropy"


def write_data(path: Path, sentences: int, words: int) -> None:
    """Manifest, features and dictionary of one batch."""
    chance = np.random.default_rng(1)
    dictionary = Dictionary()
    for word in range(words):
        dictionary.add_symbol(f"w{word}")
    dictionary.save(str(path / "dict.txt"))
    (path / "config.yaml").write_text("vocab_filename: dict.txt\ninput_feat_per_channel: 80\n", encoding="utf-8")
    lines = ["id\taudio\tn_frames\ttgt_text\tspeaker\tsrc_text"]
    for number in range(sentences):
        frames = int(chance.integers(*FRAMES))
        audio = path / f"{number}.npy"
        np.save(audio, chance.standard_normal((frames, 80), dtype=np.float32))
        said, translated = (
            " ".join(f"w{w}" for w in chance.integers(0, words, chance.integers(*LENGTH))) for _ in "st"
        )
        lines.append(f"{number}\t{audio}\t{frames}\t{translated}\t-\t{said}")
    (path / "train.tsv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_expert(path: Path) -> None:
    """A checkpoint of an untrained translation model with 6+6 layers, d = 512."""
    from fairseq import checkpoint_utils, options, tasks
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    for language in ("src", "tgt"):
        (path / f"dict.{language}.txt").write_bytes((path / "dict.txt").read_bytes())
    parser = options.get_training_parser()
    flags = ["--task", "translation", "--source-lang", "src", "--target-lang", "tgt", "--arch", "transformer"]
    flags += ["--share-decoder-input-output-embed", "--criterion", "cross_entropy"]
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [str(path), *flags]))
    model = tasks.setup_task(config.task).build_model(config.model)
    state = {"cfg": config, "model": model.state_dict(), "optimizer_history": [{}], "extra_state": {}}
    checkpoint_utils.torch_persistent_save(state, str(path / "expert.pt"))


def resident(name: str) -> int:
    """Bytes, by their name in the status of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.M)[0])


class Memory:
    """The peak of an update, on a GPU or in the process."""

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda
        self._before = 0

    def begin(self) -> None:
        """Before the first update."""
        self._before = torch.cuda.memory_allocated() if self._cuda else resident("VmRSS")

    def reset(self) -> None:
        """Before an update."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")

    def peak(self) -> int:
        """Since then, beyond what was there before the first update."""
        return (torch.cuda.max_memory_allocated() if self._cuda else resident("VmHWM")) - self._before


def measure(data: Path, system: str, updates: int, cpu: bool) -> dict[str, float]:
    """Seconds of an update and bytes at its peak, in this process."""
    from fairseq import trainer
    from fairseq_cli import train

    cuda = torch.cuda.is_available() and not cpu
    memory = Memory(cuda)
    seconds: list[float] = []
    peaks: list[int] = []
    parameters = 0
    stock = trainer.Trainer.train_step

    def train_step(self: Any, *arguments: Any, **keywords: Any) -> Any:
        nonlocal parameters
        if not seconds:
            parameters = sum(4 * parameter.numel() for parameter in self.get_model().parameters())
            memory.begin()
        memory.reset()
        started = time.perf_counter()
        result = stock(self, *arguments, **keywords)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        peaks.append(memory.peak())
        return result

    task, criterion, *more = SYSTEMS[system]
    command = [
        *("fairseq-train", str(data), "--task", task, "--criterion", criterion, *more, "--arch", "s2t_transformer_s"),
        *("--optimizer", "adam", "--lr", "1e-4", "--clip-norm", "10", "--batch-size", "100000", "--seed", "1"),
        *("--required-batch-size-multiple", "1"),
        *("--max-update", str(updates), "--no-save", "--disable-validation", "--num-workers", "0"),
        *("--log-format", "simple", *(() if cuda else ("--cpu",))),
    ]
    if "imitkd" in task:
        command += ["--expert", str(data / "expert.pt"), "--expert-data", str(data / "dict.txt")]
    with mock.patch.object(sys, "argv", command), mock.patch.object(trainer.Trainer, "train_step", train_step):
        train.cli_main()
    return {"update_s": median(seconds[WARM_UP:]), "peak_bytes": max(peaks[WARM_UP:]) + parameters}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imitation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of all systems (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=6, help="of each system in a round (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=16, help="of the batch (default: %(default)s)")
    parser.add_argument("--words", type=int, default=10_000, help="of both dictionaries (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="although there is a GPU")
    parser.add_argument("--one", nargs=2, metavar=("SYSTEM", "DATA"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one[1]), args.one[0], args.updates, args.cpu)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SYSTEMS}
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        write_data(data, args.sentences, args.words)
        write_expert(data)
        for _ in range(args.rounds):
            for name in SYSTEMS:
                command = [sys.executable, "-m", "benchmarks.imitation", "--one", name, str(data)]
                command += ["--updates", str(args.updates), *(["--cpu"] if args.cpu else [])]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[name].append(json.loads(output.splitlines()[-1]))
    means = {name: {key: median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}
    for name, row in means.items():
        ratios = {f"{key.split('_')[0]}_ratio": round(row[key] / means[BASELINE][key], 2) for key in row}
        shown = {"update_s": round(row["update_s"], 3), "peak_mib": round(row["peak_bytes"] / 2**20)}
        print(json.dumps({"system": name, **shown, **ratios}), flush=True)


if __name__ == "__main__":
    main()
