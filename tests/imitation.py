"""An expert for the toy world of speech, which reads what is said there."""

from pathlib import Path

import torch
from fairseq.data import Dictionary

from tests import cli, speech, toy

# A small model that translates the toy world's words after three seconds.
EXPERT = (
    *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1),
    *("--encoder-embed-dim", 32, "--encoder-ffn-embed-dim", 64, "--encoder-attention-heads", 2),
    *("--decoder-embed-dim", 32, "--decoder-ffn-embed-dim", 64, "--decoder-attention-heads", 2, "--dropout", 0.0),
)
SOURCE, TARGET = "src", "tgt"


def write_text(path: Path, world: speech.World, split: str = "train") -> Path:
    """What is said in a split, with its translations, as binarised data of ``--task translation``."""
    dictionaries = [Dictionary.load(str(world.data / name)) for name in ("dict.src.txt", "dict.txt")]
    sides = [
        [dictionary.encode_line(getattr(each, side), add_if_not_exist=False).long() for each in world.utterances[split]]
        for side, dictionary in zip(("source", "target"), dictionaries, strict=True)
    ]
    path.mkdir(parents=True, exist_ok=True)
    for language, dictionary in zip((SOURCE, TARGET), dictionaries, strict=True):
        dictionary.save(str(path / f"dict.{language}.txt"))
    toy.write_split(path, split, *sides, languages=(SOURCE, TARGET))
    return path


def train_expert(directory: Path, text: Path, *arguments: object, updates: int = 200) -> Path:
    """Train a small translation model; its checkpoint."""
    toy.forget_other_trainings()
    return toy.train(
        directory,
        *(*EXPERT, "--source-lang", SOURCE, "--target-lang", TARGET),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1, "--max-update", updates),
        *arguments,
        data=text,
    )


def flags(expert: Path, world: speech.World) -> tuple[object, ...]:
    """What names the expert."""
    return (
        *("--expert", expert, "--expert-vocab-src", world.data / "dict.src.txt"),
        *("--expert-vocab-tgt", world.data / "dict.txt"),
    )


def train(
    directory: Path,
    world: speech.World,
    expert: Path,
    *arguments: object,
    criterion: str = "imit_kd",
    updates: int = 12,
) -> cli.Run:
    """Train a small student with stock fairseq-train inside this process.

    Args:
        directory: where checkpoints go.
        world: the data.
        expert: checkpoint.
        arguments: what differs.
        criterion: one of imitation.
        updates: of 30 utterances.
    """
    toy.forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *(world.data, "--task", "speech_to_text_imitkd", "--criterion", criterion, *flags(expert, world)),
        *("--train-subset", "train", "--valid-subset", "valid", "--save-dir", directory, "--no-epoch-checkpoints"),
        *speech.MODEL,
        *("--optimizer", "adam", "--lr", 0.003, "--clip-norm", 1.0, "--batch-size", 30, "--max-update", updates),
        *("--seed", 3, "--log-format", "simple", "--num-workers", 0, "--user-dir", cli.PACKAGE, "--cpu"),
        *arguments,
    )


def parameters(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Of the model in a checkpoint."""
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=False)["model"]
    return state
