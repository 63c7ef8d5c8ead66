"""The toy translation task (``tests/data/toy``): where it is, and variations of it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tests import cli

TOY = Path(__file__).parent / "data" / "toy"
DOMAIN = TOY / "bin-domain"
GENERAL = TOY / "bin-general"
BASE = TOY / "base.pt"
ARGS_STYLE = TOY / "base_args_style.pt"

ARCHITECTURE = "transformer"  # of the base

TRAIN_SENTENCES, VALID_SENTENCES, TEST_SENTENCES = 2000, 201, 203  # of the new domain


def base_arguments(data: Path = DOMAIN, model: Path | str = BASE) -> tuple[object, ...]:
    """What every run of fairseq-generate with the plug-in begins with."""
    return (data, "--task", "translation_knn", "--path", model)


def build(path: Path, *arguments: object, split: str = "valid", data: Path = DOMAIN, model: Path = BASE) -> cli.Run:
    """Build a datastore inside this process."""
    return cli.generate(*build_arguments(path, *arguments, split=split, data=data, model=model))


def build_arguments(
    path: Path, *arguments: object, split: str = "valid", data: Path = DOMAIN, model: Path = BASE
) -> tuple[object, ...]:
    """Arguments of fairseq-generate that build a datastore; without ``--user-dir`` and ``--cpu``."""
    return (
        *base_arguments(data, model),
        *("--gen-subset", split, "--score-reference", "--quiet", "--max-tokens", 2048),
        *("--knn-mode", "build_datastore", "--knn-datastore-path", path),
        *arguments,
    )


def translate(
    datastore: Path | str, *arguments: object, split: str = "test", data: Path = DOMAIN, model: Path | str = BASE
) -> cli.Run:
    """Translate with a datastore inside this process, with beam 4 unless told otherwise."""
    return cli.generate(
        *base_arguments(data, model),
        *("--gen-subset", split, "--knn-datastore-path", datastore, "--beam", 4),
        *arguments,
    )


def train(directory: Path, *arguments: object, data: Path = GENERAL) -> Path:
    """Train a model for a moment with stock fairseq-train; give back its checkpoint.

    Args:
        directory: where checkpoints go.
        arguments: ``--arch``, its dimensions, and what differs from twenty small updates with Adam.
        data: binarised data with a train split.
    """
    run = train_base(directory, *arguments, data=data)
    assert run.status == 0, run.log[-2000:]
    return directory / "checkpoint_last.pt"


def train_base(directory: Path, *arguments: object, data: Path = GENERAL) -> cli.Run:
    """The same, as it ends."""
    forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *(data, "--task", "translation", "--save-dir", directory, "--no-epoch-checkpoints"),
        *("--optimizer", "adam", "--lr", 0.01, "--batch-size", 32, "--max-update", 20, "--seed", 3),
        *("--num-workers", 0, "--disable-validation", "--user-dir", cli.PACKAGE, "--cpu"),
        *arguments,
    )


def train_pairs(directory: Path, *arguments: object, task: str = "translation_pairs") -> cli.Run:
    """Train a tiny model on the 201 pairs for validation with stock fairseq-train, inside this process.

    Args:
        directory: where checkpoints go.
        arguments: what differs from one epoch.
        task: ``translation_pairs``, or stock's.
    """
    forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *(DOMAIN, "--task", task, "--train-subset", "valid", "--save-dir", directory, "--no-epoch-checkpoints"),
        *("--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1),
        *("--encoder-embed-dim", 16, "--encoder-ffn-embed-dim", 32, "--encoder-attention-heads", 2),
        *("--decoder-embed-dim", 16, "--decoder-ffn-embed-dim", 32, "--decoder-attention-heads", 2),
        *("--optimizer", "adam", "--lr", 0.01, "--batch-size", 32, "--max-epoch", 1, "--seed", 3),
        *("--num-workers", 0, "--disable-validation", "--user-dir", cli.PACKAGE, "--cpu"),
        *arguments,
    )


def train_combiner(
    directory: Path,
    datastore: Path | str,
    *arguments: object,
    data: Path = DOMAIN,
    epoch_checkpoints: bool = False,
    finetune: bool = True,
) -> cli.Run:
    """Train a combiner on the toy base with stock fairseq-train, inside this process.

    Args:
        directory: where checkpoints go.
        datastore: of the base.
        arguments: the combiner, the number of updates, and what differs from the settings here.
        data: binarised data with the splits that are asked for.
        epoch_checkpoints: whether one is kept of every epoch.
        finetune: whether the base is named with ``--finetune-from-model``.
    """
    forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *(data, "--task", "translation_knn", "--knn-mode", "train", "--knn-datastore-path", datastore),
        *("--arch", ARCHITECTURE, "--save-dir", directory),
        *(("--finetune-from-model", BASE) if finetune else ()),
        *(() if epoch_checkpoints else ("--no-epoch-checkpoints",)),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.001),
        *("--optimizer", "adam", "--lr", 0.003, "--batch-size", 32, "--max-update", 20, "--clip-norm", 1.0),
        *("--log-format", "simple", "--seed", 3, "--num-workers", 0, "--user-dir", cli.PACKAGE, "--cpu"),
        *arguments,
    )


def forget_other_trainings() -> None:
    """fairseq-train keeps the best loss and its patience on functions; a process runs it once."""
    from fairseq import checkpoint_utils
    from fairseq_cli.train import should_stop_early

    for function in (checkpoint_utils.save_checkpoint, should_stop_early):
        for name in ("best", "num_runs"):
            vars(function).pop(name, None)


def generate_with(path: Path | str, *arguments: object) -> cli.Run:
    """Translate the test data with what a combiner's checkpoint alone says."""
    return cli.generate(
        *(DOMAIN, "--task", "translation_knn", "--path", path, "--gen-subset", "test", "--beam", 4), *arguments
    )


def read_side(data: Path, split: str, language: str) -> list[torch.Tensor]:
    """Token ids of every sentence of one side of a split, each with its EOS."""
    from fairseq.data import Dictionary, data_utils

    dictionary = Dictionary.load(str(data / f"dict.{language}.txt"))
    dataset = data_utils.load_indexed_dataset(str(data / f"{split}.de-en.{language}"), dictionary)
    return [dataset[i].long() for i in range(len(dataset))]


def write_split(
    data: Path,
    split: str,
    source: Sequence[torch.Tensor],
    target: Sequence[torch.Tensor],
    *,
    languages: tuple[str, str] = ("de", "en"),
    like: Path = DOMAIN,
) -> None:
    """Write a binarised split, and the dictionaries of *like* beside it if there are none."""
    from fairseq.data import indexed_dataset

    data.mkdir(parents=True, exist_ok=True)
    for language, sentences in zip(languages, (source, target), strict=True):
        if not (data / f"dict.{language}.txt").exists():
            shutil.copy(like / f"dict.{language}.txt", data)
        prefix = str(data / f"{split}.{'-'.join(languages)}.{language}")
        builder = indexed_dataset.make_builder(f"{prefix}.bin", impl="mmap", vocab_size=1000)
        for sentence in sentences:
            builder.add_item(sentence)
        builder.finalize(f"{prefix}.idx")


def perturbed_base(path: Path, seed: int = 1) -> Path:
    """Another model: the base with a little noise on its parameters."""
    checkpoint = torch.load(BASE, weights_only=False)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sorted(checkpoint["model"].items()):
        if tensor.is_floating_point() and tensor.dim() > 1:
            noise = torch.randn(tensor.shape, generator=generator)
            checkpoint["model"][name] = tensor + 0.05 * tensor.std() * noise
    torch.save(checkpoint, path)
    return path


def content(directory: Path) -> dict[str, bytes]:
    """Every file below a directory with its bytes, hidden ones included."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def assert_scores_close(
    left: cli.Run, right: cli.Run, tolerance: float = 2e-4, *, sentences: int = TEST_SENTENCES, same: float = 1.0
) -> None:
    """Equal hypotheses have equal positional scores.

    Args:
        left, right: runs over the same sentences.
        tolerance: on scores to the base 2 that are printed with four decimals.
        sentences: how many there must be.
        same: share of the hypotheses that must be equal.
    """
    one, other = left.hypotheses(), right.hypotheses()
    assert len(one) == sentences
    assert one.keys() == other.keys()
    equal = [i for i in one if one[i].text == other[i].text]
    assert len(equal) >= same * sentences, f"only {len(equal)} of {sentences} hypotheses are equal"
    for i in equal:
        np.testing.assert_allclose(one[i].positional, other[i].positional, rtol=0, atol=tolerance)
