"""Text as windows of tokens, for run_clm.py."""

import argparse
import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fairseq_knn.errors import ConfigurationError

logger = logging.getLogger("run_clm")

IGNORED = -100
LONGEST_BLOCK = 1024  # of a model that takes more, if --block_size is not given


@dataclass(frozen=True)
class Windows:
    """A text in pieces that the model takes, each token predicted once but for the first of all.

    Args:
        tokens: of the whole text, int64 (N,).
        block: longest piece, context included.
        stride: tokens of a piece that are predicted.
    """

    tokens: Tensor
    block: int
    stride: int

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.stride)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Tokens and labels of a piece, int64 (n,)."""
        first, last = number * self.stride, min((number + 1) * self.stride, len(self.tokens))
        tokens = self.tokens[max(0, first + self.stride - self.block) : last]
        labels = tokens.clone()
        labels[: len(tokens) - (last - first)] = IGNORED
        return tokens, labels

    @property
    def predicted(self) -> int:
        """How many tokens are predicted: the first of a piece without context is not."""
        without_context = len(self) if self.stride >= self.block else 1
        return len(self.tokens) - without_context

    @property
    def digest(self) -> str:
        """What identifies text and pieces."""
        digest = hashlib.sha256(f"{self.block} {self.stride}".encode())
        digest.update(self.tokens.numpy().tobytes())
        return digest.hexdigest()

    def batches(self, numbers: Sequence[int], size: int) -> Iterator[dict[str, Tensor]]:
        """Pieces side by side, padded behind."""
        for start in range(0, len(numbers), size):
            pieces = [self[number] for number in numbers[start : start + size]]
            longest = max(len(tokens) for tokens, _ in pieces)
            batch = {
                "input_ids": torch.zeros((len(pieces), longest), dtype=torch.int64),
                "attention_mask": torch.zeros((len(pieces), longest), dtype=torch.int64),
                "labels": torch.full((len(pieces), longest), IGNORED),
            }
            for row, (tokens, labels) in enumerate(pieces):
                batch["input_ids"][row, : len(tokens)] = tokens
                batch["attention_mask"][row, : len(tokens)] = 1
                batch["labels"][row, : len(labels)] = labels
            yield batch


def counted(batch: dict[str, Tensor]) -> int:
    """How many tokens a batch predicts."""
    return int((batch["labels"][:, 1:] != IGNORED).sum())


class Text:
    """The splits as windows of tokens, read when they are needed.

    Args:
        args: the options.
        tokenizer: of the model.
        longest: how many tokens the model takes.
    """

    def __init__(self, args: argparse.Namespace, tokenizer: Any, longest: int) -> None:
        self._args, self._tokenizer = args, tokenizer
        self._block = min(args.block_size or LONGEST_BLOCK, tokenizer.model_max_length, longest)
        if args.block_size is not None and self._block < args.block_size:
            logger.warning(
                f"--block_size is {args.block_size}, but the model takes {self._block} tokens: these are used"
            )

    def windows(self, split: str, stride: int | None = None) -> Windows:
        """
        Args:
            split: ``train``, ``validation`` or ``test``.
            stride: ``None`` for blocks side by side.

        Raises:
            ConfigurationError: there is no such text, or it is empty.
        """
        stride = min(self._block, stride or self._block)
        numbers: list[int] = []
        lines = list(self._lines(split))
        for start in tqdm(range(0, len(lines), 1000), desc=f"tokens of {split}", disable=len(lines) < 10000):
            encoded = self._tokenizer(lines[start : start + 1000], verbose=False)["input_ids"]
            numbers += [token for line in encoded for token in line]
        if len(numbers) < 2:
            raise ConfigurationError(f"the {split} text has {len(numbers)} tokens, so none is predicted: give another")
        tokens = torch.tensor(numbers)
        limit = self._args.max_train_samples if split == "train" else self._args.max_eval_samples
        if limit is not None:
            tokens = tokens[: limit * stride]
        windows = Windows(tokens, self._block, stride)
        logger.info(
            f"{split}: {windows.predicted:,} tokens to predict in {len(windows):,} pieces of up to {self._block}"
        )
        return windows

    def _lines(self, split: str) -> Iterator[str]:
        args = self._args
        if args.dataset_name is not None:
            yield from self._of_dataset(split)
            return
        named = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
        if named[split] is not None:
            yield from _read(named[split])
        elif split in ("train", "validation") and named["train"] is not None:
            lines = list(_read(named["train"]))
            cut = len(lines) * args.validation_split_percentage // 100
            yield from lines[:cut] if split == "validation" else lines[cut:]
        else:
            raise ConfigurationError(f"there is no {split} text: give --{split}_file or --dataset_name")

    def _of_dataset(self, split: str) -> Iterator[str]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise ConfigurationError(
                f"--dataset_name needs the package datasets ({error}): pip install datasets, or give text files with "
                "--train_file, --validation_file, --test_file"
            ) from None
        args = self._args
        content = load_dataset(args.dataset_name, args.dataset_config_name, split=split, cache_dir=args.cache_dir)
        yield from content["text"]


def _read(path: str) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8") as file:
            yield from file
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a text file") from error
