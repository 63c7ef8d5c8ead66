"""A toy language model: random text of two domains, cut into documents, and models trained for a moment."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests import cli

WORDS = [f"w{number}" for number in range(40)]
_SIZES = {
    "--decoder-embed-dim": 16,
    "--decoder-ffn-embed-dim": 32,
    "--decoder-layers": 2,
    "--decoder-attention-heads": 2,
}
_ADAPTIVE = (
    *("--criterion", "adaptive_loss", "--ddp-backend", "legacy_ddp", "--adaptive-softmax-cutoff", "12,30"),
    *("--adaptive-input", "--adaptive-input-cutoff", "12,30", "--tie-adaptive-weights", "--adaptive-input-factor", 2),
    *("--adaptive-softmax-factor", 2, "--decoder-input-dim", 16, "--decoder-output-dim", 16),
)
MODELS: dict[str, tuple[object, ...]] = {"plain": ("--share-decoder-input-output-embed",), "adaptive": _ADAPTIVE}


@dataclass(frozen=True)
class Text:
    """Binarised text with ``train``, ``valid`` and ``test``.

    Args:
        data: its directory.
        lines: of every split, with titles and empty lines.
    """

    data: Path
    lines: dict[str, list[str]]

    def tokens(self, split: str) -> int:
        """Number of tokens, an EOS for every line included."""
        return sum(len(line.split()) + 1 for line in self.lines[split])

    def documents(self, split: str) -> np.ndarray:
        """Number of the document of every token: the text begins with a title."""
        numbers, document = [], -1
        for line in self.lines[split]:
            document += bool(re.match(r" = [^=]* = $", line))
            numbers += [document] * (len(line.split()) + 1)
        return np.array(numbers)


def write_text(root: Path, seed: int, *, titles: bool = True, like: Path | None = None) -> Text:
    """Make text of a domain.

    Args:
        root: directory to make.
        seed: of the domain: which words follow which.
        titles: whether documents have titles, in the way of WikiText, or are separated by empty lines.
        like: data whose dictionary is taken.
    """
    chance = random.Random(seed)
    follow = {word: chance.sample(WORDS, 3) for word in WORDS}

    def sentence() -> str:
        words = [chance.choice(WORDS)]
        while len(words) < chance.randint(4, 12):
            words.append(chance.choices(follow[words[-1]], [6, 3, 1])[0])
        return " ".join(words)

    def document() -> list[str]:
        body = [sentence() for _ in range(chance.randint(3, 6))]
        if not titles:
            return [*body, ""]
        heading = f" = {chance.choice(WORDS)} {chance.choice(WORDS)} = "
        return [heading, "", *body[:2], "", f" = = {chance.choice(WORDS)} = = ", "", *body[2:], ""]

    root.mkdir(parents=True)
    sizes = {"train": 25, "valid": 4, "test": 4}
    lines = {split: [line for _ in range(size) for line in document()] for split, size in sizes.items()}
    for split, text in lines.items():
        (root / split).write_text("".join(f"{line}\n" for line in text))
    dictionary = () if like is None else ("--srcdict", like / "dict.txt")
    prefixes = [part for split in sizes for part in (f"--{split}pref", root / split)]
    run = cli.call(
        "fairseq-preprocess", "--only-source", *prefixes, "--destdir", root / "bin", "--workers", 1, *dictionary
    )
    assert run.status == 0, run.log
    return Text(root / "bin", lines)


def train(directory: Path, text: Text, name: str, *arguments: object) -> Path:
    """Train one of :data:`MODELS` for a moment with stock fairseq-train; give back its checkpoint."""
    sizes = [part for pair in _SIZES.items() for part in pair]
    run = cli.call(
        "fairseq-train",
        *(text.data, "--task", "language_modeling", "--arch", "transformer_lm", *sizes),
        *MODELS.get(name, ()),
        *("--tokens-per-sample", 32, "--optimizer", "adam", "--lr", 0.01, "--max-tokens", 512, "--max-update", 40),
        *("--save-dir", directory, "--no-epoch-checkpoints", "--disable-validation", "--seed", 3, "--num-workers", 0),
        *("--no-save-optimizer-state", "--user-dir", cli.PACKAGE, "--cpu", *arguments),
    )
    assert run.status == 0, run.log[-2000:]
    return directory / "checkpoint_last.pt"


def evaluate(
    text: Text, model: Path, *arguments: object, task: str = "language_modeling_knn", split: str = "test"
) -> cli.Run:
    """Run stock fairseq-eval-lm inside this process; it prints the log-probability of every token."""
    return cli.call(
        "fairseq-eval-lm",
        *(text.data, "--task", task, "--path", model, "--gen-subset", split, "--num-workers", 0),
        *("--tokens-per-sample", 32, "--max-tokens", 256, "--output-word-probs"),
        *(*arguments, "--user-dir", cli.PACKAGE, "--cpu"),
    )


def build(text: Text, model: Path, datastore: Path, *arguments: object) -> cli.Run:
    """Build a datastore of the training text."""
    building = ("--knn-mode", "build_datastore", "--knn-datastore-path", datastore)
    return evaluate(text, model, *building, *arguments, split="train")


def scores(run: cli.Run) -> dict[int, list[tuple[str, float]]]:
    """What fairseq-eval-lm printed of every block: its tokens and their log-probabilities, rounded."""
    blocks = re.findall(r"^(\d+) (\S+ \[-?[\d.]+\](?:\t\S+ \[-?[\d.]+\])*)$", run.log, re.MULTILINE)
    return {
        int(number): [(word, float(score)) for word, score in re.findall(r"(\S+) \[(-?[\d.]+)\]", line)]
        for number, line in blocks
    }


def perplexity(run: cli.Run) -> float:
    """As fairseq-eval-lm prints it."""
    (found,) = re.findall(r"Perplexity: ([\d.]+)", run.log)
    return float(found)
