"""Eight languages, two of them small, into English: how much to sample each, fixed or learned. One table, one picture.

Everything is done by the commands this script prints: stock fairseq with
``--user-dir $(fairseq-knn path)``, and ``fairseq-knn``. They can be copied; run again, the script skips what is
done. See docs/multidds.md.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sacrebleu
from workflow import USER_DIR, CommandFailed, Workflow, quote, times

from fairseq_knn.cli.sampling_curves import draw_sampling
from fairseq_knn.sampling.round_log import read_rounds
from fairseq_knn.storage.atomic import atomic_path

SEED = 1
CORPUS, ENGLISH = "ui", "eng"
LANGUAGES = ("aze", "bel", "rus", "tur", "glg", "por", "slk", "ces")  # the smallest first
LOW_RESOURCE = ("aze", "bel")
PIECES = {"sources": 8000, ENGLISH: 4000}
LINES = 4000  # of every language, that the pieces are learned from: more than Azerbaijani has
UPDATES = 1800
# The authors' 200 steps of 1e-4 every 1000 updates are for trainings many times as long.
_ACTOR = (
    "--datasize-t 1 --update-language-sampling 50 --data-actor base --data-actor-lr 0.01 --data-actor-optim-step 10"
)
SYSTEMS = {
    # name: (in the table, options of its training)
    "proportional": ("proportional", "--datasize-t 1"),
    "temperature": ("temperature 5", "--datasize-t 5"),
    "multidds-s": ("MultiDDS-S", f"{_ACTOR} --data-actor-multilin"),
    "multidds": ("MultiDDS", _ACTOR),
}


@dataclass(frozen=True)
class Score:
    """What one language's test set says."""

    bleu: float
    chrf: float
    sentences: int
    signature: str


@dataclass(frozen=True)
class Training:
    """What a training took, and what its actor did.

    Attributes:
        updates: of the model.
        seconds: of processors.
        actor: share of the training's time that the actor took; ``None`` without one.
        probabilities: of the languages at the end; ``None`` without an actor.
    """

    updates: int
    seconds: float
    actor: float | None = None
    probabilities: Mapping[str, float] | None = None


class Demo:
    """The steps in order; all paths are below *work*.

    Args:
        work: directory of everything it makes.
        results: where the table goes.
        pictures: where the picture goes.
        seed: of all trainings.
    """

    def __init__(self, work: Path, results: Path, pictures: Path, seed: int) -> None:
        self.work, self.results, self.pictures, self.seed = work, results, pictures, seed
        self.flow = Workflow(work)

    def run(self) -> None:
        print(f"the commands below can be copied after: source {Path(sys.prefix) / 'bin' / 'activate'}")
        self.prepare()
        logs = self._train()
        outputs = self._translate()
        rows = [row(SYSTEMS[system][0], self._scores(system, outputs), training(log)) for system, log in logs.items()]
        self._write(rows, logs)

    # --- data -------------------------------------------------------------------------------------

    @property
    def text(self) -> Path:
        return self.work / "text"

    @property
    def pieces(self) -> Path:
        return self.work / "pieces"

    @property
    def binary(self) -> Path:
        return self.work / "bin"

    def file(self, split: str, language: str, side: str) -> str:
        return f"{split}.{language}-{ENGLISH}.{side}"

    def prepare(self) -> None:
        """Text, pieces and binary data: all sources have one vocabulary, English has its own."""
        self.flow.run("corpus", f"fairseq-knn corpus {CORPUS} {quote(self.text)}")
        for side, size in PIECES.items():
            model = self.work / f"{side}.model"
            sides = {language: ENGLISH if side == ENGLISH else language for language in LANGUAGES}
            learned = " ".join(quote(self.text / self.file("train", *item)) for item in sides.items())
            self.flow.run(
                f"spm-train-{side}",
                f"python examples/spm.py train --model {quote(model)} --vocabulary {size} --lines {LINES} {learned}",
            )
            files = [self.file(split, *item) for split in ("train", "valid", "test") for item in sides.items()]
            named = " ".join(f"{quote(self.text / name)} {quote(self.pieces / name)}" for name in files)
            self.flow.run(f"spm-{side}", f"python examples/spm.py encode --model {quote(model)} {named}")
            # The first three are fairseq's own: <unk>, <s>, </s>.
            self.flow.run(
                f"dictionary-{side}",
                f"tail -n +4 {quote(model.with_suffix('.vocab'))} | cut -f 1 | sed 's/$/ 1/' > "
                f"{quote(self.dictionary(side))}",
            )
        self.flow.run_all({f"binarise-{language}": self._binarise(language) for language in LANGUAGES})

    def dictionary(self, side: str) -> Path:
        return self.work / f"dict.{side}.txt"

    def _binarise(self, language: str) -> str:
        prefixes = " ".join(
            f"--{split}pref {quote(self.pieces / f'{split}.{language}-{ENGLISH}')}"
            for split in ("train", "valid", "test")
        )
        return (
            f"fairseq-preprocess -s {language} -t {ENGLISH} {prefixes} --srcdict {quote(self.dictionary('sources'))} "
            f"--tgtdict {quote(self.dictionary(ENGLISH))} --destdir {quote(self.binary)}"
        )

    # --- systems ----------------------------------------------------------------------------------

    @property
    def _task(self) -> str:
        """What all of fairseq's commands share."""
        pairs = ",".join(f"{language}-{ENGLISH}" for language in LANGUAGES)
        return (
            f"{quote(self.binary)} --user-dir {USER_DIR} --task translation_multi_dds --lang-pairs {pairs} "
            f"--source-dict {quote(self.dictionary('sources'))} --target-dict {quote(self.dictionary(ENGLISH))} --cpu"
        )

    def model(self, system: str) -> Path:
        return self.work / system / "checkpoint_last.pt"

    def _train(self) -> dict[str, str]:
        """The logs of all systems."""
        outputs = self.flow.run_all(
            {
                f"train-{system}": f"fairseq-train {self._task} --save-dir {quote(self.model(system).parent)} "
                f"--seed {self.seed} --sample-instance {options} --max-update {UPDATES} --arch transformer "
                "--share-decoder-input-output-embed --encoder-normalize-before --decoder-normalize-before "
                "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 128 --decoder-embed-dim 128 "
                "--encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 --encoder-attention-heads 4 "
                "--decoder-attention-heads 4 --dropout 0 --optimizer adam --adam-betas '(0.9, 0.98)' "
                "--clip-norm 1.0 --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 300 "
                "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 1024 "
                "--no-epoch-checkpoints --disable-validation --log-format simple --log-interval 100 --num-workers 0"
                for system, (_, options) in SYSTEMS.items()
            }
        )
        return {system: outputs[f"train-{system}"] for system in SYSTEMS}

    def _translate(self) -> dict[str, str]:
        return self.flow.run_all(
            {
                f"test-{system}-{language}": f"fairseq-generate {self._task} -s {language} -t {ENGLISH} --path "
                f"{quote(self.model(system))} --gen-subset test --beam 5 --batch-size 64 --remove-bpe sentencepiece "
                "--no-progress-bar"
                for system in SYSTEMS
                for language in LANGUAGES
            }
        )

    def _scores(self, system: str, outputs: Mapping[str, str]) -> dict[str, Score]:
        scores = {}
        for language in LANGUAGES:
            references = self.text / self.file("test", language, ENGLISH)
            output = outputs[f"test-{system}-{language}"]
            scores[language] = score(output, references.read_text(encoding="utf-8").splitlines())
        return scores

    # --- results ----------------------------------------------------------------------------------

    def _write(self, rows: list[dict[str, Any]], logs: Mapping[str, str]) -> None:
        content = {
            "rows": rows,
            "seed": self.seed,
            "seconds": round(self.flow.seconds),
            "processor_seconds": round(self.flow.processor_seconds),
        }
        self.results.mkdir(parents=True, exist_ok=True)
        self.pictures.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.results / "demo_dds.json") as path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        table = markdown(content)
        with atomic_path(self.results / "demo_dds.md") as path:
            path.write_text(table, encoding="utf-8")
        curves = {SYSTEMS[system][0]: read_rounds(log.splitlines()) for system, log in logs.items()}
        draw_sampling({title: rounds for title, rounds in curves.items() if rounds}, self.pictures / "demo_dds.png")
        print(f"\n{table}\nwritten to {self.results}/demo_dds.json and .md, picture: {self.pictures}/demo_dds.png")


def score(output: str, references: Sequence[str]) -> Score:
    """What fairseq-generate says, compared with the references.

    Raises:
        CommandFailed: it has translated other sentences.
    """
    hypotheses = {int(number): text for number, text in re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", output, re.MULTILINE)}
    if sorted(hypotheses) != list(range(len(references))):
        raise CommandFailed(f"{len(hypotheses)} translations for {len(references)} references: sentences were lost")
    ordered = [hypotheses[number] for number in range(len(references))]
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    return Score(
        bleu=round(bleu.corpus_score(ordered, [references]).score, 2),
        chrf=round(chrf.corpus_score(ordered, [references]).score, 2),
        sentences=len(references),
        signature=f"BLEU: {bleu.get_signature()}; chrF: {chrf.get_signature()}",
    )


def training(log: str) -> Training:
    """What fairseq-train says."""
    updates = [int(number) for number in re.findall(r"num_updates[ =](\d+)", log)]
    took = re.search(r"done training in ([\d.]+) seconds", log)
    assert updates
    assert took is not None
    rounds = read_rounds(log.splitlines())
    return Training(
        updates=max(updates),
        seconds=times(log)[1],
        actor=round(sum(one.seconds for one in rounds) / float(took[1]), 3) if rounds else None,
        probabilities=dict(rounds[-1].p) if rounds else None,
    )


def row(system: str, scores: Mapping[str, Score], made: Training) -> dict[str, Any]:
    """One line of the table: means are over languages."""
    return {
        "system": system,
        **asdict(made),
        "scores": {language: asdict(one) for language, one in scores.items()},
        "bleu": _mean([one.bleu for one in scores.values()]),
        "bleu_low_resource": _mean([scores[language].bleu for language in LOW_RESOURCE]),
        "chrf": _mean([one.chrf for one in scores.values()]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(statistics.mean(values), 2)


def markdown(content: Mapping[str, Any]) -> str:
    """The table, and what its columns mean."""
    rows = content["rows"]
    lines = [
        f"| system | {' | '.join(LANGUAGES)} | mean | {' and '.join(LOW_RESOURCE)} | chrF | updates | training, s | "
        "of it the actor |",
        f"|---|{'---:|' * (len(LANGUAGES) + 6)}",
    ]
    for one in rows:
        languages = " | ".join(f"{one['scores'][language]['bleu']:.1f}" for language in LANGUAGES)
        actor = "" if one["actor"] is None else f"{one['actor']:.0%}"
        lines.append(
            f"| {one['system']} | {languages} | {one['bleu']:.1f} | {one['bleu_low_resource']:.1f} | "
            f"{one['chrf']:.1f} | {one['updates']} | {one['seconds']:.0f} | {actor} |"
        )
    signature = rows[0]["scores"][LANGUAGES[0]]["signature"]
    return "\n".join(
        [
            *lines,
            "",
            "BLEU of each language into English, mean BLEU of all and of the two small ones, mean chrF; seconds of one "
            "processor.",
            "",
            signature,
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("--work", "demo-dds", "data, models and logs"),
        ("--results", "results", "where the table goes"),
        ("--pictures", "docs/images", "where the picture goes"),
    ):
        parser.add_argument(name, type=Path, default=Path(default), help=f"{what} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of all trainings (default: %(default)s)")
    args = parser.parse_args()
    try:
        Demo(args.work, args.results, args.pictures, args.seed).run()
    except CommandFailed as failure:
        print(f"demo-dds: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
