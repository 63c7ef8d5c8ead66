"""A toy world of several languages: every language has its own words for the same English ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from fairseq.data import Dictionary

from tests import cli, toy

WORDS = 20
ENGLISH = "eng"

# Small models that learn the toy world within a few hundred updates.
MODEL = (
    *("--arch", "transformer", "--share-all-embeddings", "--encoder-layers", 1, "--decoder-layers", 1),
    *("--encoder-embed-dim", 32, "--decoder-embed-dim", 32, "--encoder-ffn-embed-dim", 64),
    *("--decoder-ffn-embed-dim", 64, "--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
)


def write(
    path: Path,
    sizes: Mapping[str, int],
    *,
    valid: int = 24,
    shuffled: Mapping[str, float] | None = None,
    words_of: Mapping[str, str] | None = None,
    words: int = WORDS,
    longest: int = 8,
    to_english: bool = True,
    seed: int = 1,
) -> Path:
    """Write binarised data with one dictionary for all languages.

    Args:
        path: of the directory.
        sizes: training sentences of each language.
        valid: sentences of its valid and test sets.
        shuffled: share of a language's training sentences, the first ones, that have the target of another.
        words_of: languages that use the words of another.
        words: that occur.
        longest: words of a sentence, at most; at least 3.
        to_english: the direction of the pairs.
        seed: of the sentences.
    """
    path.mkdir(parents=True, exist_ok=True)
    dictionary = Dictionary()
    for language in (ENGLISH, *sizes):
        for word in range(WORDS):
            dictionary.add_symbol(f"{language}{word}")
    for language in (ENGLISH, *sizes):
        dictionary.save(str(path / f"dict.{language}.txt"))
    generator = torch.Generator().manual_seed(seed)

    def in_words(language: str, sentences: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        first = dictionary.index(f"{(words_of or {}).get(language, language)}0")
        end = torch.tensor([dictionary.eos()])
        return [torch.cat([sentence + first, end]) for sentence in sentences]

    for language, size in sizes.items():
        for split, count in (("train", size), ("valid", valid), ("test", valid)):
            lengths = torch.randint(3, longest + 1, (count,), generator=generator).tolist()
            meanings = [torch.randint(0, words, (length,), generator=generator) for length in lengths]
            targets = list(meanings)
            if split == "train":
                wrong = int((shuffled or {}).get(language, 0) * count)
                targets[:wrong] = targets[1:wrong] + targets[: min(wrong, 1)]
            sides = in_words(language, meanings), in_words(ENGLISH, targets)
            names = (language, ENGLISH)
            if not to_english:
                sides, names = sides[::-1], names[::-1]
            toy.write_split(path, split, *sides, languages=names)
    return path


def pairs(languages: Sequence[str], to_english: bool = True) -> str:
    """Value of ``--lang-pairs``."""
    return ",".join(f"{name}-{ENGLISH}" if to_english else f"{ENGLISH}-{name}" for name in languages)


def train(
    directory: Path, data: Path, languages: Sequence[str], *arguments: object, to_english: bool = True
) -> cli.Run:
    """Train a small model with stock fairseq-train inside this process.

    Args:
        directory: where checkpoints go.
        data: as :func:`write` wrote it.
        languages: without English.
        arguments: what differs from the settings here.
        to_english: the direction.
    """
    toy.forget_other_trainings()
    return cli.call(
        "fairseq-train",
        *(data, "--task", "translation_multi_dds", "--lang-pairs", pairs(languages, to_english)),
        *("--save-dir", directory, "--no-epoch-checkpoints", *MODEL),
        *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", 0.1),
        *("--optimizer", "adam", "--lr", 0.005, "--batch-size", 16, "--seed", 3, "--log-format", "simple"),
        *("--num-workers", 0, "--user-dir", cli.PACKAGE, "--cpu"),
        *arguments,
    )
