"""The actions: help, test, train, evaluate."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fairseq_knn.recipe import components
from fairseq_knn.recipe.composing import COMPONENTS, STEPS, Recipe
from fairseq_knn.recipe.resolving import require

_EVALUATED = tuple(step for step in STEPS if step not in ("criterion", "optimizer", "schedule"))


def _help(recipe: Recipe, steps: Sequence[str]) -> int:
    from fairseq_knn.recipe.help_text import help_text

    # Only components' own settings take the seconds that fairseq does.
    if set(steps) & set(COMPONENTS) or not all(components.is_default(recipe, step) for step in COMPONENTS):
        _check(recipe)
    print(help_text(recipe, steps))
    return 0


def _test(recipe: Recipe, steps: Sequence[str]) -> int:
    from fairseq_knn.recipe.steps import NEEDS, Steps

    needed = {need for step in steps for need in (step, *NEEDS.get(step, ()))}
    _check(recipe, tuple(needed))
    taking = Steps(recipe, _say)
    with _quiet("fairseq"):  # the steps say themselves what they do
        for step in steps:
            _say(f"Success! {step} = {taking.take(step)}")
    return 0


def _train(recipe: Recipe, steps: Sequence[str]) -> int:
    from fairseq_knn.recipe.training import train

    _check(recipe, STEPS)
    return train(recipe, _say)


def _evaluate(recipe: Recipe, steps: Sequence[str]) -> int:
    from fairseq_knn.recipe.evaluation import evaluate

    _check(recipe, _EVALUATED)
    return evaluate(recipe, _say)


def _check(recipe: Recipe, needed: tuple[str, ...] = ()) -> None:
    """Hold the settings against what fairseq and the user have registered, and against what is needed."""
    from fairseq_knn.recipe.user_code import load

    require(recipe, needed)
    load(recipe.settings.code.user_dir)
    components.check(recipe)
    require(recipe, needed)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Of a logger, warnings alone."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _say(line: str) -> None:
    print(line, flush=True)


ACT: dict[str, Callable[[Recipe, Sequence[str]], int]] = {
    "help": _help,
    "test": _test,
    "train": _train,
    "evaluate": _evaluate,
}
