"""What the settings say about the languages: pairs, weights, vectors."""

from argparse import Namespace
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.distribution import weight_distribution


def check_pairs(args: Namespace) -> None:
    """Refuse pairs that are none.

    Raises:
        ConfigurationError: one sentence.
    """
    pairs = args.lang_pairs
    if not pairs:
        raise ConfigurationError("no --lang-pairs are named: list them all, as in --lang-pairs aze-eng,tur-eng")
    names = pairs.split(",") if isinstance(pairs, str) else pairs
    if odd := [pair for pair in names if len(pair.split("-")) != 2 or not all(pair.split("-")) or " " in pair]:
        raise ConfigurationError(
            f"--lang-pairs has {odd[0]!r}, which is no pair: write source and target with a hyphen between them, and "
            "commas between pairs, as in aze-eng,tur-eng"
        )
    if len(set(names)) < len(names):
        raise ConfigurationError(f"--lang-pairs {','.join(names)} names a pair twice: name each once")
    known = args.langs if args.langs is None or not isinstance(args.langs, str) else args.langs.split(",")
    if args.lang_dict is None and known is not None:
        for pair in names:
            if missing := [language for language in pair.split("-") if language not in known]:
                raise ConfigurationError(
                    f"--lang-pairs has {pair}, but --langs {','.join(known)} lacks {missing[0]}: add it there"
                )


def eval_pairs(given: str, pairs: list[str]) -> list[str]:
    """The pairs that ``--eval-lang-pairs`` names.

    Raises:
        ConfigurationError: one is not among those that are trained.
    """
    chosen = given.split(",")
    if unknown := [pair for pair in chosen if pair not in pairs]:
        raise ConfigurationError(
            f"--eval-lang-pairs names {unknown[0]}, but --lang-pairs is {','.join(pairs)}: choose from these"
        )
    if len(set(chosen)) < len(chosen):
        raise ConfigurationError(f"--eval-lang-pairs {given} names a pair twice: name each once")
    return chosen


def language_vectors(path: str | None, count: int) -> Tensor | None:
    """What describes the languages, float32 (n, e); ``None``: nothing was given.

    Raises:
        ConfigurationError: the file has not a line of numbers for every language.
    """
    if path is None:
        return None
    try:
        vectors = torch.from_numpy(np.loadtxt(path, dtype=np.float32, ndmin=2))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--embedding-file {path} cannot be read ({error}): it has a line of numbers for every language"
        ) from error
    if len(vectors) != count:
        raise ConfigurationError(
            f"--embedding-file {path} has {len(vectors)} lines, but there are {count} languages: write one for each, "
            "in the order of --lang-pairs"
        )
    return vectors


def numbers(flag: str, text: str) -> list[float]:
    """The numbers of a comma-separated list.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return [float(part) for part in str(text).split(",")]
    except ValueError:
        raise ConfigurationError(f"{flag} {text!r} is no list of numbers: separate them by commas") from None


def starting_distribution(given: str, languages: Sequence[str]) -> NDArray[np.float64]:
    """What ``--lan-dists`` says, float64 (n,).

    Raises:
        ConfigurationError: it has not a weight above 0 for every language.
    """
    weights = numbers("--lan-dists", given)
    if len(weights) != len(languages):
        raise ConfigurationError(
            f"--lan-dists has {len(weights)} weights, but there are {len(languages)} languages: give one for each, in "
            f"the order {', '.join(languages)}"
        )
    return weight_distribution(weights)
