"""The steps of a recipe: what can be set, what it is when nobody sets it, and what it means.

A field's help stands in its metadata. ``_name`` chooses the component. ``???`` in a recipe's YAML marks what has to be
given.
"""

from dataclasses import dataclass, field
from typing import Any


def setting(default: Any, text: str) -> Any:
    """A field with its help."""
    return field(default=default, metadata={"help": text})


@dataclass
class Pairs:
    """the sentence pairs: read from a file, filtered, split into train, valid and test"""

    file: str | None = setting(
        None,
        "tab-separated text, as it is, zipped (Tatoeba's fra-eng.zip), .gz or .bz2; without one, interface sentences "
        "of Home Assistant are fetched from its package",
    )
    source: str = setting("eng", "language that is translated")
    target: str = setting("fra", "language it is translated into")
    source_column: int = setting(1, "column of the source language; the first is 1")
    target_column: int = setting(2, "column of the target language")
    skip_rows: int = setting(0, "rows at the head that are no pairs, such as names of columns")
    max_words: int = setting(100, "longer sentences are left out, with their translations")
    max_ratio: float = setting(3.0, "a side more than so many times as long as the other (in characters) is left out")
    valid: int = setting(1000, "pairs to validate with")
    test: int = setting(1000, "pairs to evaluate with")
    seed: int = setting(1, "of the split, and of the order of the training pairs")
    directory: str | None = setting(
        None, "where text, tokenizer and binarised data go; recipes/SOURCE-TARGET if not given"
    )
    sha256: str | None = setting(None, "checksum the file must have; a trained recipe has noted it")


@dataclass
class Tokenizer:
    """from text to pieces and back, one vocabulary for both languages"""

    _name: str = setting("sentencepiece", "sentencepiece, trained on the training pairs; or another of fairseq's --bpe")
    vocab_size: int = setting(5000, "number of pieces")
    model_type: str = setting("unigram", "unigram or bpe")
    character_coverage: float = setting(1.0, "share of the characters of the text that get a piece")
    path: str | None = setting(
        None, "its model, reused if it is there; DIRECTORY/SOURCE-TARGET.VOCAB_SIZE.model if not given"
    )


@dataclass
class TrainData:
    """batches to train with"""

    _name: str = setting("pairs", "pairs: those above; text: two files of your own, line by line")
    source_file: str | None = setting(None, "of text")
    target_file: str | None = setting(None, "of text")
    batch_size: int | None = setting(32, "sentence pairs in a batch")
    max_tokens: int | None = setting(None, "tokens in a batch at most, padding included")
    shuffle: int = setting(10_000, "pairs that are shuffled together, in every epoch anew; 0: the order of the file")
    num_workers: int = setting(1, "processes that load")


@dataclass
class HeldOutData:
    """batches that nothing is learned from"""

    _name: str = setting("pairs", "pairs: those above; text: two files of your own, line by line")
    source_file: str | None = setting(None, "of text")
    target_file: str | None = setting(None, "of text")
    batch_size: int = setting(64, "sentence pairs in a batch")


@dataclass
class ValidData(HeldOutData):
    """batches to validate with: the checkpoint with the lowest loss on them is the best"""


@dataclass
class TestData(HeldOutData):
    """batches to evaluate with"""


@dataclass
class Model:
    """the network; its vocabulary is the tokenizer's"""

    _name: str = setting("transformer", "or another architecture of fairseq's or yours, with its own settings")
    dim: int = setting(128, "of embeddings and layers")
    layers: int = setting(4, "of the encoder, and as many of the decoder")
    ffn_dim: int | None = setting(None, "of the feed-forward layers; 4 x dim if not given")
    heads: int = setting(4, "of attention")
    dropout: float = setting(0.1, "probability")
    pre_norm: bool = setting(True, "layer normalisation before each block, not after it")
    share_embeddings: bool = setting(True, "one table for source, target and output")


@dataclass
class Task:
    """how the model uses the data; where your own hooks go"""

    _name: str = setting("translation_pairs", "or a task of yours")


@dataclass
class Criterion:
    """the loss"""

    _name: str = setting("label_smoothed_cross_entropy", "or another of fairseq's or yours, with its own settings")
    label_smoothing: float = setting(0.1, "probability that is spread over the vocabulary")


@dataclass
class Optimizer:
    """what updates the parameters"""

    _name: str = setting("adam", "or another of fairseq's or yours, with its own settings")
    lr: float = setting(2e-3, "learning rate, at its highest")
    clip_norm: float = setting(1.0, "length that gradients are cut to; 0: not")
    adam_betas: str = setting("(0.9, 0.98)", "decay of the moments")
    weight_decay: float = setting(0.0, "per update, times the learning rate")


@dataclass
class Schedule:
    """how the learning rate changes"""

    _name: str = setting("inverse_sqrt", "or another of fairseq's or yours, with its own settings")
    warmup_updates: int = setting(1000, "until the learning rate is at its highest")


@dataclass
class Device:
    """where it runs"""

    kind: str = setting("auto", "cpu, cuda, or auto: all GPUs if there are any")
    fp16: bool = setting(False, "half precision (GPUs)")


@dataclass
class Training:
    """how long, and where it is kept"""

    save_dir: str | None = setting(None, "checkpoints, settings, tokenizer, dictionaries; DIRECTORY/model if not given")
    max_update: int = setting(10_000, "updates")
    max_epoch: int = setting(0, "epochs; 0: as many as max_update takes")
    patience: int = setting(-1, "validations without a better loss until training ends; -1: never")
    validate_every: int = setting(1000, "updates between validations, each of which keeps a checkpoint")
    log_every: int = setting(100, "updates between lines of the log")
    seed: int = setting(1, "of parameters, dropout and the order of batches")


@dataclass
class Evaluation:
    """translation of the test data by beam search, scored with BLEU and chrF"""

    beam: int = setting(5, "hypotheses")
    lenpen: float = setting(1.0, "length penalty; above 1 longer translations")
    checkpoint: str = setting("best", "best, last, or the path of one")


@dataclass
class Code:
    """code of yours"""

    user_dir: str | None = setting(
        None, "directory whose criterions, tasks, architectures and the like can be named below; it imports fairseq_knn"
    )


@dataclass
class Settings:
    """All steps, in the order they are taken."""

    code: Code = field(default_factory=Code)
    pairs: Pairs = field(default_factory=Pairs)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    train_data: TrainData = field(default_factory=TrainData)
    valid_data: ValidData = field(default_factory=ValidData)
    test_data: TestData = field(default_factory=TestData)
    model: Model = field(default_factory=Model)
    task: Task = field(default_factory=Task)
    criterion: Criterion = field(default_factory=Criterion)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    device: Device = field(default_factory=Device)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
