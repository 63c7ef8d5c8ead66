"""Trained combiners: training from a cache against training without, and translating against vanilla."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow import CommandFailed, Workflow, quote

from benchmarks.decoding import KNN, OPTIONS
from benchmarks.rounds import Figures, Meter, as_json, ratios, spread
from benchmarks.setting import USER_DIR, Setting
from benchmarks.stock_output import LOADING, read_run, require_equal

_ROUNDS = 2
_K = 8  # as the vanilla combiner it is compared with
_TOKENS = 1024  # of a batch, as in KSTER's published settings
KINDS = {"adaptive": "adaptive", "kernel_smoothed": "KSTER"}
_BASE, _CACHED = "without cache", "cached"
# Enough to take half a minute each.
_UPDATES = {_BASE: {"small": 30, "large": 8}, _CACHED: {"small": 600, "large": 300}}
VANILLA = "vanilla"


class Combiners:
    """Combiners of one setting.

    Args:
        setting: its model, and its test text, which they are trained on here: speed does not depend on what they learn.
        work: where combiners and caches go.
        flow: runs what is prepared.
        meter: runs what is measured.
    """

    def __init__(self, setting: Setting, work: Path, flow: Workflow, meter: Meter) -> None:
        self._setting, self._flow, self._meter = setting, flow, meter
        self._work = work / f"{setting.name}-combiners"

    def train(self) -> list[dict[str, Any]]:
        """Rows of the table of training."""
        rows = []
        for kind, name in KINDS.items():
            filled = self._flow.run(f"{self._setting.name}-cache-{kind}", self._command(kind, _CACHED, 1, "--no-save"))
            commands = {
                system: self._command(kind, system, updates[self._setting.name], "--no-save")
                for system, updates in _UPDATES.items()
            }
            results = self._meter.measure(
                f"training-{kind}-{self._setting.name}", commands, _read_training, rounds=_ROUNDS
            )
            rows.append(
                {
                    "setting": self._setting.name,
                    "combiner": name,
                    "tokens": _TOKENS,
                    "updates_per_s": {
                        system: as_json(spread(results, system, "updates_per_s", 2)) for system in commands
                    },
                    "ratio": as_json(ratios(results, _CACHED, _BASE, "updates_per_s")),
                    "filling_tokens_per_s": _filling(filled),
                }
            )
        return rows

    def translate(self) -> list[dict[str, Any]]:
        """Rows of the table of translating."""
        setting = self._setting
        commands = {
            VANILLA: setting.generate(
                setting.data, "translation_knn", f"{OPTIONS} --knn-datastore-path {quote(setting.store)} {KNN}"
            )
        }
        for kind, name in KINDS.items():
            self._flow.run(f"{setting.name}-combiner-{kind}", self._command(kind, _CACHED, 50))
            trained = replace(setting, model=self._directory(kind) / "checkpoint_last.pt")
            commands[name] = trained.generate(setting.data, "translation_knn", OPTIONS)
        results = self._meter.measure(f"combiners-{setting.name}", commands, read_run, rounds=_ROUNDS, after=LOADING)
        require_equal(results, "tokens")
        return [
            {
                "setting": setting.name,
                "system": name,
                "tokens_per_s": as_json(spread(results, name, "tokens_per_s")),
                "search_ms": as_json(spread(results, name, "search_ms")),
                "ratio": as_json(ratios(results, name, VANILLA, "tokens_per_s")),
            }
            for name in commands
        ]

    def sizes(self) -> list[dict[str, Any]]:
        """How large checkpoints are, in bytes, against the base's without its optimiser."""
        base = _parameters_bytes(self._setting.model)
        return [
            {
                "setting": self._setting.name,
                "combiner": name,
                "base_bytes": base,
                "bytes": _parameters_bytes(self._directory(kind) / "checkpoint_last.pt"),
            }
            for kind, name in KINDS.items()
        ]

    def _directory(self, kind: str) -> Path:
        return self._work / kind

    def _command(self, kind: str, system: str, updates: int, options: str = "") -> str:
        setting = self._setting
        cache = f"--knn-cache {quote(self._work / 'cache')}" if system == _CACHED else ""
        return (
            f"fairseq-train {quote(setting.data)} --user-dir {USER_DIR} --task translation_knn --knn-mode train "
            f"--knn-combiner {kind} --knn-k {_K} --knn-datastore-path {quote(setting.store)} {cache} "
            f"--arch transformer --finetune-from-model {quote(setting.model)} --train-subset test --disable-validation "
            "--cpu --seed 1 --criterion label_smoothed_cross_entropy --label-smoothing 0.001 --optimizer adam "
            f"--lr 3e-4 --clip-norm 1.0 --max-tokens {_TOKENS} --max-update {updates} --num-workers 0 "
            f"--no-epoch-checkpoints --no-save-optimizer-state --save-dir {quote(self._directory(kind))} "
            # no thread that loads ahead: stopped within an epoch, it may break the end of the process (status 134)
            f"--log-format simple --log-interval 1000 --data-buffer-size 0 {options}"
        )


def _read_training(output: str, seconds: float) -> Figures:
    """Updates per second by fairseq's own clock, which runs from the first epoch on."""
    done = re.search(r"done training in ([\d.]+) seconds", output)
    updates = re.findall(r"num_updates: (\d+) >= max_update", output)
    if done is None or not updates:
        raise CommandFailed(f"{output[-1000:]}\nfairseq-train did not say how long it took")
    return {"updates_per_s": int(updates[0]) / float(done[1])}


def _filling(output: str) -> float:
    """Tokens per second of filling the cache; 0 if it was full."""
    told = re.search(r"is cached \|.*?, ([\d,]+) entries/s", output)
    return float(told[1].replace(",", "")) if told else 0.0


def _parameters_bytes(checkpoint: Path) -> int:
    import torch

    from fairseq_knn.compat import allow_fairseq_checkpoints

    allow_fairseq_checkpoints()
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["model"]
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
