"""One step at a time: it is taken, with what it needs, and what came out is shown."""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from fairseq_knn.errors import UserError
from fairseq_knn.recipe.built import Built, explained
from fairseq_knn.recipe.composing import Recipe
from fairseq_knn.recipe.preparation import Preparation, Say
from fairseq_knn.recipe.resolving import SPLITS, check_device

_DATA = ("pairs", "tokenizer", *SPLITS.values())
# What has to be given for a step, beside itself.
NEEDS = {
    "tokenizer": ("pairs", "train_data"),
    **dict.fromkeys((*SPLITS.values(), "model", "task", "training"), _DATA),
    "criterion": (*_DATA, "task", "model"),
    "optimizer": (*_DATA, "task", "model"),
    "schedule": (*_DATA, "task", "model", "optimizer"),
    "evaluation": (*_DATA, "task", "training"),
}
_LONG_TREE = 40  # lines
_UPDATES = 10_000  # of a training that ends by epochs


class Steps:
    """The steps of a recipe, and what each shows.

    Args:
        recipe: resolved and checked.
        say: gets lines.
    """

    def __init__(self, recipe: Recipe, say: Say) -> None:
        self._recipe, self._settings, self._say = recipe, recipe.settings, say
        self._preparation = Preparation(recipe, say)

    def take(self, step: str) -> str:
        """Take a step; what came out, in a few words.

        Raises:
            UserError: it cannot be taken.
        """
        taken: Callable[[], str] = getattr(self, f"_{step}")
        return taken()

    @cached_property
    def _built(self) -> Built:
        return Built(self._preparation.configuration())

    def _code(self) -> str:
        return self._settings.code.user_dir or "none of yours"

    def _pairs(self) -> str:
        pairs = self._preparation.pairs
        for split in SPLITS:
            lines = [_head(pairs.path(split, language)) for language in self._preparation.languages]
            self._say(f"  {split}: {pairs.counts[split]:,} pairs, such as {lines[0]!r}, {lines[1]!r}")
        return f"{sum(pairs.counts.values()):,} pairs in {pairs.directory}"

    def _tokenizer(self) -> str:
        tokenizer = self._preparation.tokenizer
        for language, text in zip(self._preparation.languages, self._preparation.text("train"), strict=True):
            line = _head(text)
            pieces = tokenizer.encode(line)
            self._say(f"  {language}: {line}")
            self._say(f"    in pieces: {pieces}")
            self._say(f"    and back:  {tokenizer.decode(pieces)}")
        pieces = tokenizer.pieces()
        size = f"{len(pieces):,} pieces" if pieces is not None else "its pieces are those of the training text"
        return f"{tokenizer.name}, {size}, {self._settings.tokenizer.path or 'no model of its own'}"

    def _train_data(self) -> str:
        return self._data("train")

    def _valid_data(self) -> str:
        return self._data("valid")

    def _test_data(self) -> str:
        return self._data("test")

    def _data(self, split: str) -> str:
        task = self._built.task
        batches = self._built.batches(split)
        count, sentences, first = 0, 0, None
        for batch in batches:
            first = first or batch
            count, sentences = count + 1, sentences + len(batch["id"])
        if first is None:
            raise UserError(f"{SPLITS[split]} has no batch: give it more pairs")
        source, target = first["net_input"]["src_tokens"], first["target"]
        self._say(f"  first batch: source {tuple(source.shape)}, target {tuple(target.shape)}, of numbers of pieces")
        for name, tokens, dictionary in (
            ("source", source[0], task.source_dictionary),
            ("target", target[0], task.target_dictionary),
        ):
            text = self._preparation.tokenizer.decode(dictionary.string(tokens[tokens != dictionary.pad()]))
            self._say(f"  its first {name}: {text}")
        return f"{sentences:,} pairs in {count:,} batches an epoch"

    def _task(self) -> str:
        task = self._built.task
        source, target = task.source_dictionary, task.target_dictionary
        self._say(f"  dictionaries: {len(source):,} source and {len(target):,} target pieces")
        return f"{type(task).__module__}.{type(task).__name__}"

    def _model(self) -> str:
        model = self._built.model
        tree = str(model).split("\n")
        for line in tree[:_LONG_TREE]:
            self._say(f"  {line}")
        if len(tree) > _LONG_TREE:
            self._say(f"  ... {len(tree) - _LONG_TREE:,} more lines")
        vocabulary = len(self._built.task.target_dictionary)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return f"{type(model).__name__}, {parameters:,} parameters, vocabulary {vocabulary:,}"

    def _criterion(self) -> str:
        import torch

        batch = next(iter(self._built.batches("train")))
        model, criterion = self._built.model.eval(), self._built.criterion.eval()
        with torch.no_grad(), explained("criterion"):
            loss, size, logged = criterion(model, batch)
        vocabulary = len(self._built.task.target_dictionary)
        self._say(f"  loss of the first batch: {float(loss) / size:.3f} ({', '.join(sorted(logged))} are logged)")
        self._say(
            f"  of a model that knows nothing, log {vocabulary:,}: {math.log(vocabulary):.3f} (natural logarithms)"
        )
        return f"{type(criterion).__name__}, {float(loss) / size:.3f} on the untrained model"

    def _optimizer(self) -> str:
        optimizer = self._built.optimizer
        parameters = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        return f"{type(optimizer).__name__}, for {parameters:,} parameters"

    def _schedule(self) -> str:
        schedule, optimizer = self._built.schedule, self._built.optimizer
        schedule.step_begin_epoch(1)
        end = self._settings.training.max_update or _UPDATES
        marks = {1, self._settings.schedule.warmup_updates, *(end * share // 100 for share in (1, 5, 10, 25, 50, 100))}
        for update in sorted(mark for mark in marks if 0 < mark <= end):
            schedule.step_update(update)
            self._say(f"  learning rate at update {update:>7,}: {optimizer.get_lr():.3g}")
        return type(schedule).__name__

    def _device(self) -> str:
        import torch

        check_device(self._recipe)
        kind = self._settings.device.kind
        gpus = torch.cuda.device_count() if torch.cuda.is_available() and kind != "cpu" else 0
        for number in range(gpus):
            self._say(f"  {torch.cuda.get_device_name(number)}")
        precision = "half" if self._settings.device.fp16 else "single"
        return f"{f'{gpus} GPUs' if gpus else f'CPU, {torch.get_num_threads()} threads'}, {precision} precision"

    def _training(self) -> str:
        from omegaconf import OmegaConf

        text = OmegaConf.to_yaml(OmegaConf.create(dict(self._preparation.configuration())))
        for line in text.splitlines():
            self._say(f"  {line}")
        return f"to be in {self._settings.training.save_dir}"

    def _evaluation(self) -> str:
        from fairseq_knn.recipe.evaluation import EVALUATION, evaluate

        if status := evaluate(self._recipe, self._say):
            raise UserError(f"fairseq-generate ended with status {status}: its last lines say why")
        return str(Path(str(self._settings.training.save_dir)) / EVALUATION)


def _head(path: Path) -> str:
    """The first line of a file."""
    with path.open(encoding="utf-8") as lines:
        return next(lines, "").rstrip("\n")
