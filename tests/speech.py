"""A toy world of speech: every source word sounds like a spectrum of its own, and has one word for its translation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from fairseq.data import Dictionary

from tests import cli, toy

WORDS = 20
CHANNELS = 80  # mel bands
FRAMES = 8  # of a word; the encoder makes two positions of them
SIZES = MappingProxyType({"train": 60, "valid": 12, "test": 13})  # test: not a multiple of eight
COLUMNS = ("id", "audio", "n_frames", "tgt_text", "speaker", "src_text")
CONFIG = "config.yaml"

_NOISE = 0.3  # standard deviations; the spectra have 1
_SHORTEST, _LONGEST = 2, 6  # words

# A small model that learns half of the toy world in four seconds.
MODEL = (
    *("--arch", "s2t_transformer", "--encoder-layers", 1, "--decoder-layers", 1, "--conv-channels", 32),
    *("--encoder-embed-dim", 32, "--encoder-ffn-embed-dim", 64, "--encoder-attention-heads", 2),
    *("--decoder-embed-dim", 32, "--decoder-ffn-embed-dim", 64, "--decoder-attention-heads", 2),
    *("--dropout", 0.0, "--attention-dropout", 0.0, "--activation-dropout", 0.0),
)


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest.

    Args:
        name: its ``id``.
        source: words that are heard.
        target: words of the translation.
        features: float32 (T, :data:`CHANNELS`).
    """

    name: str
    source: str
    target: str
    features: np.ndarray


@dataclass(frozen=True)
class World:
    """Data of ``--task speech_to_text``.

    Args:
        data: directory with manifests, ``config.yaml``, ``dict.txt`` of the targets, and ``dict.src.txt`` of the
            transcripts.
        utterances: of every split, in the order of its manifest.
    """

    data: Path
    utterances: dict[str, list[Utterance]]


def write(
    path: Path, sizes: Mapping[str, int] = SIZES, *, seed: int = 1, words: int = WORDS, noise: float = _NOISE
) -> World:
    """Write manifests and features, the same for the same arguments. How words sound and translate never changes.

    Args:
        path: of the directory.
        sizes: utterances of each split.
        seed: of the sentences and of the noise.
        words: that occur.
        noise: standard deviation beside that of the spectra, 1.
    """
    path.mkdir(parents=True, exist_ok=True)
    language = np.random.default_rng(7)
    spectra = language.standard_normal((WORDS, FRAMES, CHANNELS)).astype(np.float32)
    translation = language.permutation(WORDS)
    for name, side in (("dict.txt", "t"), ("dict.src.txt", "s")):
        dictionary = Dictionary()
        for word in range(WORDS):
            dictionary.add_symbol(f"{side}{word}")
        dictionary.save(str(path / name))
    (path / CONFIG).write_text(
        f"vocab_filename: dict.txt\ninput_feat_per_channel: {CHANNELS}\ninput_channels: 1\nshuffle: false\n"
    )
    chance = np.random.default_rng(seed)
    utterances: dict[str, list[Utterance]] = {}
    for split, size in sizes.items():
        utterances[split] = []
        for number in range(size):
            heard = chance.integers(0, words, chance.integers(_SHORTEST, _LONGEST + 1))
            sound = spectra[heard].reshape(-1, CHANNELS)
            features = sound + noise * chance.standard_normal(sound.shape, dtype=np.float32)
            source = " ".join(f"s{word}" for word in heard)
            target = " ".join(f"t{translation[word]}" for word in heard)
            utterances[split].append(Utterance(f"{split}_{number}", source, target, features))
        write_split(path, split, utterances[split])
    return World(path, utterances)


def write_split(data: Path, split: str, utterances: Iterable[Utterance]) -> None:
    """Write the features of a split, a file each, and its manifest."""
    folder = data / "features"
    folder.mkdir(exist_ok=True)
    rows = []
    for utterance in utterances:
        audio = folder / f"{utterance.name}.npy"
        np.save(audio, utterance.features)
        rows.append(row(utterance, audio))
    write_manifest(data, split, rows)


def row(utterance: Utterance, audio: Path | str) -> dict[str, object]:
    """A line of a manifest by column."""
    fields = (utterance.name, audio, len(utterance.features), utterance.target, "speaker", utterance.source)
    return dict(zip(COLUMNS, fields, strict=True))


def write_manifest(data: Path, split: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write ``SPLIT.tsv``."""
    lines = ["\t".join(COLUMNS), *("\t".join(str(row[column]) for column in COLUMNS) for row in rows)]
    (data / f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines))


def train(directory: Path, data: Path, *arguments: object, task: str = "speech_to_text", updates: int = 150) -> cli.Run:
    """Train a small model with stock fairseq-train inside this process.

    Args:
        directory: where checkpoints go.
        data: as :func:`write` wrote it.
        arguments: what differs from the settings here.
        task: stock's, or one of the plug-in.
        updates: of 30 sentences; BLEU of the test split is about 45 after 150.
    """
    toy.forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *(data, "--task", task, "--train-subset", "train", "--valid-subset", "valid", "--save-dir", directory),
        *("--no-epoch-checkpoints", *MODEL, "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1),
        *("--optimizer", "adam", "--lr", 0.003, "--clip-norm", 1.0, "--batch-size", 30, "--max-update", updates),
        *("--seed", 3, "--log-format", "simple", "--num-workers", 0, "--user-dir", cli.PACKAGE, "--cpu"),
        *arguments,
    )


def trained(directory: Path, data: Path, *arguments: object, updates: int = 150) -> Path:
    """The last checkpoint of :func:`train`, without validation on the way."""
    run = train(directory, data, "--disable-validation", *arguments, updates=updates)
    assert run.status == 0, run.log[-2000:]
    return directory / "checkpoint_last.pt"
