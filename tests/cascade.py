"""The two models of a cascade in the toy world of speech: one writes what is said, the other translates that."""

import dataclasses
from pathlib import Path

from tests import cli, imitation, speech, toy

CONFIG = "text.yaml"


def write_config(world: speech.World) -> None:
    """The YAML of the translation model."""
    (world.data / CONFIG).write_text("vocab_filename: dict.txt\nsrc_vocab_filename: dict.src.txt\n")


def write_recognition(path: Path, world: speech.World) -> Path:
    """The world's audio with what is said as its target: data of the speech recognition model."""
    path.mkdir()
    (path / "dict.txt").write_bytes((world.data / "dict.src.txt").read_bytes())
    (path / speech.CONFIG).write_bytes((world.data / speech.CONFIG).read_bytes())
    for split, utterances in world.utterances.items():
        speech.write_split(path, split, [dataclasses.replace(each, target=each.source) for each in utterances])
    return path


def arguments(world: speech.World, expert: Path, criterion: str = "imit_pipeline_nmt_training") -> tuple[object, ...]:
    """What every training of a student that imitates begins with."""
    return (
        *(world.data, "--task", "translation_imitkd", "--config-yaml", CONFIG, "--criterion", criterion),
        *imitation.flags(expert, world),
    )


def train(directory: Path, *arguments: object, updates: int = 8) -> cli.Run:
    """Train a small translation model with stock fairseq-train inside this process.

    Args:
        directory: where checkpoints go.
        arguments: data, task and criterion, and what differs.
        updates: of 30 sentences.
    """
    toy.forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *("--train-subset", "train", "--valid-subset", "valid", "--save-dir", directory),
        *("--no-epoch-checkpoints", *imitation.EXPERT, "--optimizer", "adam", "--lr", 0.003, "--clip-norm", 1.0),
        *(
            "--batch-size",
            30,
            "--required-batch-size-multiple",
            1,
            "--max-update",
            updates,
            "--seed",
            3,
            "--log-format",
            "simple",
            "--num-workers",
            0,
        ),
        *("--user-dir", cli.PACKAGE, "--cpu", *arguments),
    )


def columns(data: Path, split: str, rows: list[dict[str, object]]) -> None:
    """Write a manifest with any columns."""
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    (data / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines))
