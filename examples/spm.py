"""SentencePiece as two commands: train a model, encode text.

python examples/spm.py train --model it.model --vocabulary 5000 it/train.de it/train.en
python examples/spm.py encode --model it.model medical/train.de medical-spm/train.de ...
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import sentencepiece


def sample(lines: Sequence[str], most: int | None) -> Sequence[str]:
    """At most so many lines, evenly spaced; ``None``: all."""
    if most is None or len(lines) <= most:
        return lines
    return [lines[number * len(lines) // most] for number in range(most)]


def text(paths: Sequence[Path], most: int | None) -> Iterator[str]:
    """What pieces are learned from."""
    return chain.from_iterable(sample(path.read_text(encoding="utf-8").splitlines(), most) for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a model on text files")
    train.add_argument("--model", type=Path, required=True)
    train.add_argument("--vocabulary", type=int, default=5000)
    train.add_argument(
        "--lines", type=int, help="of every file, evenly spaced, so that a small language counts beside large ones"
    )
    train.add_argument("text", type=Path, nargs="+")
    encode = commands.add_parser("encode", help="write the pieces of IN to OUT, for pairs IN OUT")
    encode.add_argument("--model", type=Path, required=True)
    encode.add_argument("files", type=Path, nargs="+", metavar="IN OUT")
    args = parser.parse_args()
    if args.command == "train":
        args.model.parent.mkdir(parents=True, exist_ok=True)
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=text(args.text, args.lines),
            model_prefix=str(args.model.with_suffix("")),
            vocab_size=args.vocabulary,
            character_coverage=1.0,
            minloglevel=1,
        )
    else:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(args.model))
        for source, target in zip(args.files[::2], args.files[1::2], strict=True):
            lines = source.read_text(encoding="utf-8").splitlines()
            pieces = (" ".join(processor.encode(line, out_type=str)) for line in lines)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(f"{line}\n" for line in pieces), encoding="utf-8")


if __name__ == "__main__":
    main()
