"""What MultiDDS costs: a round of the data actor against the updates of the model between two rounds.

python -m benchmarks.language_sampling [--updates 6] [--every 1000] [--work DIRECTORY]

Trains a model of the published size (configs/multi_dds) on sentences of random tokens with stock fairseq-train, and
prints a line of JSON for each method. The rounds come often here; from their time and that of an update it is computed
what share of the time they take when they come every so many updates.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from fairseq.data import Dictionary, indexed_dataset

from fairseq_knn import Datastore  # noqa: F401  # registers the tasks
from fairseq_knn.tasks.dds.data_actor_training import DataActorTraining

LANGUAGES = ("aze", "tur", "bel", "rus", "glg", "por", "slk", "ces")
SOURCE_WORDS, TARGET_WORDS = 32_000, 8_000
SENTENCES, LENGTH = 1500, 28  # of each language, and tokens of a sentence of TED talks on average
WARM_UP = 1  # updates, and rounds, that are not counted


def write_data(path: Path) -> Path:
    """Binarised data of eight languages to English."""
    generator = np.random.default_rng(1)
    dictionaries = {}
    for side, words in (("source", SOURCE_WORDS), ("eng", TARGET_WORDS)):
        dictionaries[side] = Dictionary()
        for word in range(words):
            dictionaries[side].add_symbol(f"{side}{word}")
    dictionaries["eng"].save(str(path / "dict.eng.txt"))
    for language in LANGUAGES:
        dictionaries["source"].save(str(path / f"dict.{language}.txt"))
        for split, count in (("train", SENTENCES), ("valid", 100)):
            lengths = np.clip(generator.geometric(1 / LENGTH, count), 2, 140)
            for name, words in ((language, SOURCE_WORDS), ("eng", TARGET_WORDS)):
                prefix = str(path / f"{split}.{language}-eng.{name}")
                builder = indexed_dataset.make_builder(f"{prefix}.bin", impl="mmap", vocab_size=words)
                for length in lengths:
                    tokens = generator.integers(4, words + 4, length + 1)
                    tokens[-1] = 2  # the end of the sentence
                    builder.add_item(torch.from_numpy(tokens))
                builder.finalize(f"{prefix}.idx")
    return path


def measure(data: Path, updates: int, method: tuple[str, ...]) -> dict[str, float]:
    """Seconds of an update, without rounds, and of a round."""
    from fairseq import trainer
    from fairseq_cli import train

    steps: list[float] = []
    rounds: list[float] = []
    stock_step, our_round = trainer.Trainer.train_step, DataActorTraining.round

    def train_step(self: Any, *arguments: Any, **keywords: Any) -> Any:
        before, started = sum(rounds), time.perf_counter()
        result = stock_step(self, *arguments, **keywords)
        steps.append(time.perf_counter() - started - (sum(rounds) - before))
        return result

    def one_round(self: Any, *arguments: Any) -> None:
        started = time.perf_counter()
        our_round(self, *arguments)
        rounds.append(time.perf_counter() - started)

    command = [
        *("fairseq-train", str(data), "--task", "translation_multi_dds", "--arch", "transformer_iwslt_de_en"),
        *("--lang-pairs", ",".join(f"{language}-eng" for language in LANGUAGES)),
        *("--share-decoder-input-output-embed", "--encoder-normalize-before", "--decoder-normalize-before"),
        *("--dropout", "0.3", "--attention-dropout", "0.3", "--relu-dropout", "0.3", "--scale-norm"),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--optimizer", "adam"),
        *("--lr", "2e-4", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "4000", "--max-tokens", "4800"),
        *("--update-freq", "2", "--max-source-positions", "150", "--max-target-positions", "150", "--seed", "2"),
        *("--datasize-t", "1", "--update-language-sampling", "2", "--data-actor", "base", "--data-actor-lr", "1e-4"),
        *("--data-actor-optim-step", "200", "--max-update", str(updates), "--no-save", "--disable-validation"),
        *("--log-format", "simple", "--log-interval", "1", "--cpu", "--num-workers", "0", *method),
    ]
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.object(trainer.Trainer, "train_step", train_step),
        mock.patch.object(DataActorTraining, "round", one_round),
    ):
        train.cli_main()
    return {"update_s": median(steps[WARM_UP:]), "round_s": median(rounds[WARM_UP:])}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_sampling", description=__doc__)
    parser.add_argument("--updates", type=int, default=6, help="of each method (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1000, help="updates between two rounds (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = write_data(Path(directory))
        for name, method in (("MultiDDS-S", ("--data-actor-multilin",)), ("MultiDDS", ())):
            measured = measure(data, args.updates, method)
            share = measured["round_s"] / (args.every * measured["update_s"])
            print(json.dumps({"method": name, **measured, "every": args.every, "share": share}), flush=True)


if __name__ == "__main__":
    main()
