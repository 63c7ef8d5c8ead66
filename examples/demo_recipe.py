"""English to French from nothing but sentence pairs: help, tokenizer, training, evaluation, raw text in and out.

Everything is done by the commands this script prints: ``fairseq-knn recipe``, and stock fairseq. They can be copied;
run again, the script skips what is done. See docs/recipe.md.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sacrebleu
from workflow import CommandFailed, Workflow, quote, times

from fairseq_knn.storage.atomic import atomic_path

SOURCE, TARGET = "eng", "fra"
UPDATES = 4000
AGAIN = 200  # updates that are made a second time
SENTENCES = ("Restart the server.", "The device is not available.", "Enter the password of your account.")

_HUB = (
    "import sys, fairseq_knn; from fairseq.models.transformer import TransformerModel; "
    "model = TransformerModel.from_pretrained(sys.argv[1], 'checkpoint_best.pt'); "
    "print(*('HUB\\t' + line for line in model.translate(sys.argv[2:])), sep='\\n')"
)


class Demo:
    """The steps in order; all paths are below *work*.

    Args:
        work: directory of everything it makes.
        results: where the table goes.
    """

    def __init__(self, work: Path, results: Path) -> None:
        self.work, self.results = work, results
        self.flow = Workflow(work)

    @property
    def model(self) -> Path:
        return self.work / "model"

    def run(self) -> None:
        print(f"the commands below can be copied after: source {Path(sys.prefix) / 'bin' / 'activate'}")
        # All that differs from the defaults: where it goes, and how long it may take.
        settings = (
            f"pairs.directory={quote(self.work)} device.kind=cpu training.max_update={UPDATES} "
            f"training.validate_every={UPDATES // 4}"
        )
        self.flow.run("help", f"fairseq-knn recipe help {settings}")
        self.flow.run("tokenizer", f"fairseq-knn recipe test tokenizer {settings}")
        log = self.flow.run("train", f"fairseq-knn recipe train {settings}")
        self.flow.run("evaluate", f"fairseq-knn recipe evaluate {quote(self.model / 'recipe.yaml')}")
        translated = self._translate()
        self._again(log)
        self._write(log, translated)

    def _translate(self) -> dict[str, str]:
        """Raw sentences and their translations, from the command line and in Python.

        Raises:
            CommandFailed: these differ.
        """
        model = quote(self.model)
        lines = " ".join(map(shlex.quote, SENTENCES))
        interactive = self.flow.run(
            "interactive",
            f"printf '%s\\n' {lines} | fairseq-interactive {model} -s {SOURCE} -t {TARGET} "
            f"--path {model}/checkpoint_best.pt --beam 5 --bpe sentencepiece "
            f"--sentencepiece-model {model}/sentencepiece.bpe.model --cpu",
        )
        hub = self.flow.run("hub", f"python -c {shlex.quote(_HUB)} {model} {lines}")
        return agreed(interactive, hub)

    def _again(self, log: str) -> None:
        """The first updates once more, from what the training has left.

        Raises:
            CommandFailed: they differ.
        """
        again = self.flow.run(
            "again",
            f"fairseq-knn recipe train {quote(self.model / 'recipe.yaml')} training.max_update={AGAIN} "
            f"training.save_dir={quote(self.work / 'again')}",
        )
        if losses(again) != losses(log)[: len(losses(again))]:
            raise CommandFailed(f"recipe.yaml has not given the same {AGAIN} updates: {losses(again)}, {losses(log)}")

    def _write(self, log: str, translated: Mapping[str, str]) -> None:
        evaluation = json.loads((self.model / "evaluation.json").read_text(encoding="utf-8"))
        made = json.loads((self.work / "text" / "pairs.json").read_text(encoding="utf-8"))
        sides = [
            (self.work / "text" / f"test.{side}").read_text(encoding="utf-8").splitlines() for side in (SOURCE, TARGET)
        ]
        content = {
            "pairs": made["counts"]["train"],
            "updates": UPDATES,
            "rows": [
                row("recipe", evaluation["bleu"]["score"], evaluation["chrf"]["score"]),
                row("source text as it is", *copied(*sides)),
            ],
            "sentences": evaluation["sentences"],
            "signature": f"BLEU: {evaluation['bleu']['signature']}; chrF: {evaluation['chrf']['signature']}",
            "training_processor_seconds": round(times(log)[1]),
            "translations": dict(translated),
            "seconds": round(self.flow.seconds),
            "processor_seconds": round(self.flow.processor_seconds),
        }
        self.results.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.results / "demo_recipe.json") as path:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with atomic_path(self.results / "demo_recipe.md") as path:
            path.write_text(markdown(content), encoding="utf-8")
        print(f"\n{markdown(content)}\nwritten to {self.results}/demo_recipe.json and .md")


def agreed(interactive: str, hub: str) -> dict[str, str]:
    """What fairseq-interactive and fairseq's hub say of each sentence.

    Raises:
        CommandFailed: they do not agree, or lack a sentence.
    """
    typed = re.findall(r"^D-\d+\t[^\t]*\t(.*)$", interactive, re.MULTILINE)
    loaded = re.findall(r"^HUB\t(.*)$", hub, re.MULTILINE)
    if typed != loaded or len(typed) != len(SENTENCES):
        raise CommandFailed(f"fairseq-interactive translates {typed}, the hub {loaded}")
    return dict(zip(SENTENCES, typed, strict=True))


def losses(log: str) -> list[str]:
    """Of every line of the log."""
    return re.findall(r"train_inner.* (loss=[\d.]+, nll_loss=[\d.]+), .*num_updates=\d+", log)


def copied(source: Sequence[str], target: Sequence[str]) -> tuple[float, float]:
    """BLEU and chrF of text that nobody has translated."""
    metrics = (sacrebleu.BLEU(), sacrebleu.CHRF())
    bleu, chrf = (metric.corpus_score(list(source), [list(target)]).score for metric in metrics)
    return bleu, chrf


def row(system: str, bleu: float, chrf: float) -> dict[str, Any]:
    return {"system": system, "bleu": round(bleu, 2), "chrf": round(chrf, 2)}


def markdown(content: Mapping[str, Any]) -> str:
    """Scores, and some translations."""
    scores = [f"| {one['system']} | {one['bleu']:.1f} | {one['chrf']:.1f} |" for one in content["rows"]]
    samples = [f"| {source} | {target} |" for source, target in content["translations"].items()]
    return "\n".join(
        [
            "| | BLEU | chrF |",
            "|---|---:|---:|",
            *scores,
            "",
            f"{content['sentences']:,} sentences of Home Assistant's user interface, after {content['updates']:,} "
            f"updates on {content['pairs']:,} others, {content['training_processor_seconds']:,} seconds of one "
            "processor.",
            "",
            "| typed | translated |",
            "|---|---|",
            *samples,
            "",
            content["signature"],
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("--work", "demo-recipe", "data, models and logs"),
        ("--results", "results", "where the table goes"),
    ):
        parser.add_argument(name, type=Path, default=Path(default), help=f"{what} (default: %(default)s)")
    args = parser.parse_args()
    try:
        Demo(args.work, args.results).run()
    except CommandFailed as failure:
        print(f"demo-recipe: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
