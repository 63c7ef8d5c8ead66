"""Evaluation: stock fairseq-generate translates the test data, sacreBLEU scores them."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.recipe import programs
from fairseq_knn.recipe.beside_checkpoint import check_beside, files_beside
from fairseq_knn.recipe.components import options
from fairseq_knn.recipe.composing import Recipe
from fairseq_knn.recipe.preparation import Preparation, Say
from fairseq_knn.recipe.resolving import check_device
from fairseq_knn.recipe.user_code import user_dir
from fairseq_knn.storage.atomic import atomic_path, check_writable, make_directory, write_json

EVALUATION = "evaluation.json"
_PROGRAM = "fairseq-generate"
_LINE = re.compile(r"D-(\d+)\t(.*)")


def evaluate(recipe: Recipe, say: Say) -> int:
    """Translate and score; a table is printed, and written beside the checkpoint with the translations.

    Args:
        recipe: resolved and checked.
        say: gets lines about what is done, and the table.

    Returns:
        0, or the exit status of fairseq-generate.

    Raises:
        ConfigurationError: there is no checkpoint, or no such device, or its pieces are not those of the tokenizer.
        UserError: a sentence has no translation.
    """
    directory = Path(str(recipe.settings.training.save_dir))
    path = checkpoint(recipe)
    check_device(recipe)
    preparation = Preparation(recipe, say)
    target = preparation.languages[1]
    references = _lines(preparation.text("test")[1])
    files = files_beside(preparation.tokenizer.files(), preparation.data, preparation.languages)
    check_beside(path.parent, files)
    make_directory(directory)
    check_writable(directory / EVALUATION)
    arguments = _arguments(recipe, preparation, path)
    say(f"running {programs.shown(_PROGRAM, arguments)}")
    with tempfile.TemporaryFile() as output:
        status = programs.run(_PROGRAM, arguments, output)
        if status:
            return status
        output.seek(0)
        pieces = _hypotheses(output.read().decode("utf-8"), len(references))
    # Not by fairseq-generate's --bpe, which takes no tokenizer that is described by flags.
    translations = [preparation.tokenizer.decode(line) for line in pieces]
    with atomic_path(directory / f"test.{target}") as temporary:
        temporary.write_text("".join(f"{line}\n" for line in translations), encoding="utf-8")
    search = {
        "checkpoint": str(path),
        "beam": recipe.settings.evaluation.beam,
        "lenpen": recipe.settings.evaluation.lenpen,
    }
    scores = {**search, "sentences": len(translations), **_scores(translations, references)}
    write_json(directory / EVALUATION, scores)
    say(f"{len(translations):,} sentences of the test data, translated by {path}")
    for name in ("bleu", "chrf"):
        say(f"  {scores[name]['name']:<6} {scores[name]['score']:6.2f}  {scores[name]['signature']}")
    say(f"written: {directory / EVALUATION}, {directory / f'test.{target}'}")
    return 0


def checkpoint(recipe: Recipe) -> Path:
    """The one to evaluate.

    Raises:
        ConfigurationError: there is none.
    """
    asked = recipe.settings.evaluation.checkpoint
    directory = Path(str(recipe.settings.training.save_dir))
    path = directory / f"checkpoint_{asked}.pt" if asked in ("best", "last") else Path(asked)
    if not path.is_file():
        raise ConfigurationError(
            f"there is no checkpoint {path}: train first (`fairseq-knn recipe train`), or correct training.save_dir or "
            "evaluation.checkpoint"
        )
    return path


def _arguments(recipe: Recipe, preparation: Preparation, path: Path) -> list[str]:
    settings = recipe.settings
    source, target = preparation.languages
    return [
        str(preparation.data),
        *("--user-dir", user_dir(settings.code.user_dir), "--task", settings.task._name),
        *("--source-lang", source, "--target-lang", target, "--gen-subset", "test", "--path", str(path)),
        *("--batch-size", str(settings.test_data.batch_size), "--required-batch-size-multiple", "1"),
        *("--beam", str(settings.evaluation.beam), "--lenpen", str(settings.evaluation.lenpen)),
        *(["--cpu"] if settings.device.kind == "cpu" else []),
        *(["--fp16"] if settings.device.fp16 else []),
        *_task_flags(recipe),
    ]


def _task_flags(recipe: Recipe) -> Iterator[str]:
    """The task's own settings as fairseq makes flags of a dataclass."""
    known = options("task", recipe.name_of("task"))
    for name, value in recipe.extra["task"].items():
        flag = f"--{name.replace('_', '-')}"
        if not isinstance(value, bool):
            yield from [] if value is None else [f"{flag}={value}"]
        elif value != known[name].default:
            yield flag


def _hypotheses(output: str, sentences: int) -> list[str]:
    """Translations, in pieces, in the order of the test data."""
    found = {int(m[1]): m[2].split("\t")[-1] for m in map(_LINE.match, output.split("\n")) if m}
    lacking = [number for number in range(sentences) if number not in found]
    if lacking or len(found) != sentences:
        raise UserError(
            f"{len(found):,} of {sentences:,} sentences of the test data were translated (the first that lacks is line "
            f"{lacking[0] + 1 if lacking else sentences + 1}): choose a task that leaves none out, such as "
            "task=translation_pairs"
        )
    return [found[number] for number in range(sentences)]


def _scores(translations: list[str], references: list[str]) -> dict[str, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    scores = {}
    for metric in (BLEU(), CHRF()):
        result = metric.corpus_score(translations, [references])
        scores[result.name.lower().partition("2")[0]] = {
            "name": result.name,
            "score": result.score,
            "signature": str(metric.get_signature()),
        }
    return scores


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
