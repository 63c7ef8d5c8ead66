"""A translation model meets domains it never saw: base model, datastores, one table.

Everything is done by the commands this script prints: stock fairseq with
``--user-dir $(fairseq-knn path)``, and ``fairseq-knn``. They can be copied; run again, the script skips what is
done. See docs/quickstart.md.
"""

import argparse
import json
import math
import re
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import sacrebleu
from workflow import USER_DIR, CommandFailed, Workflow, quote

SEED = 1
DOMAINS = {
    # name: (corpus, options of `fairseq-knn corpus`, domain, split, what the split measures)
    "medical-random": (
        "medical",
        "--split random",
        "test terms drawn at random: most have close relatives in the datastore, as in a translation memory",
    ),
    "medical-category": (
        "medical",
        "--split category",
        "no ICD category of a test term is in the datastore: new terms of known areas, built from known phrases",
    ),
    "medical-chapter": (
        "medical",
        "--split chapter",
        "whole ICD chapters are unseen: there are no similar terms to copy from, only the phrasing and the general "
        "words of the classification carry over",
    ),
    "religious": (
        "religious",
        "",
        "Bible books that are not in the datastore: long, free prose; a base trained on short IT strings understands "
        "too little of it to be led to the right neighbours",
    ),
}


TRAINED_ON = "medical-random"
COMBINERS = {
    # kind: (name in the table, options of its training). Both learn from the validation text, like k, lambda and T.
    "adaptive": ("adaptive kNN-MT", "--lr 3e-3 --max-update 1000"),
    "kernel_smoothed": ("KSTER", "--lr 3e-4 --max-update 500"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table; BLEU, chrF and NLL of several seeds are means."""

    system: str
    domain: str
    split: str
    bleu: float
    chrf: float
    signature: str
    sentences: int
    tokens_per_s: float
    entries: int
    k: int | None = None
    knn_lambda: float | None = None
    temperature: float | None = None
    nll: float | None = None
    seeds: int = 1
    bleu_range: tuple[float, float] | None = None


class Quickstart:
    """The steps in order; all paths are below *work*.

    Args:
        work: directory of everything it makes.
        results: where the table goes.
        seeds: how many trainings of every combiner.
    """

    def __init__(self, work: Path, results: Path, seeds: int) -> None:
        self.work, self.results, self.seeds = work, results, seeds
        self.flow = Workflow(work)
        self.rows: list[Row] = []

    def run(self) -> None:
        started = time.monotonic()
        print(f"the commands below can be copied after: source {Path(sys.prefix) / 'bin' / 'activate'}")
        self.prepare()
        self._base_row("it", "it", "test")
        for name in DOMAINS:
            self._domain(name)
            if name == TRAINED_ON:
                for kind in COMBINERS:
                    self._trained(kind, name)
        self._forgetting()
        self._write(time.monotonic() - started)

    def prepare(self) -> None:
        """Data of all domains, and the base model."""
        self._corpora()
        self._check_overlap()
        self._binarise()
        self._train_base()

    # --- data -------------------------------------------------------------------------------------

    def text(self, name: str) -> Path:
        return self.work / "text" / name

    def binary(self, name: str) -> Path:
        return self.work / "bin" / name

    def _corpora(self) -> None:
        self.flow.run("corpus-it", f"fairseq-knn corpus it {quote(self.text('it'))}")
        for name, (corpus, options, _) in DOMAINS.items():
            self.flow.run(f"corpus-{name}", f"fairseq-knn corpus {corpus} {quote(self.text(name))} {options}")

    def _check_overlap(self) -> None:
        """No test sentence may occur in any text a system learned from, on either side."""
        from fairseq_knn.corpora import overlap

        for name in ("it", *DOMAINS):
            for learned in {"it", name}:
                shared = overlap(self.text(name), self.text(learned))
                if shared:
                    raise CommandFailed(
                        f"{len(shared)} test sentences of {name} occur in the training text of {learned}, the first: "
                        f"{sorted(shared)[0]!r}: the figures would be worthless"
                    )
        print(
            "\nno test sentence of any domain occurs in the text its systems learned from",
            flush=True,
        )

    def _binarise(self) -> None:
        model = self.work / "it.model"
        it = self.text("it")
        self.flow.run(
            "spm-train",
            f"python examples/spm.py train --model {quote(model)} --vocabulary 5000 "
            f"{quote(it / 'train.de')} {quote(it / 'train.en')}",
        )
        for name in ("it", *DOMAINS):
            pieces = self.work / "pieces" / name
            files = " ".join(
                f"{quote(self.text(name) / file)} {quote(pieces / file)}"
                for split in ("train", "valid", "test")
                for file in (f"{split}.de", f"{split}.en")
            )
            self.flow.run(f"spm-{name}", f"python examples/spm.py encode --model {quote(model)} {files}")
            dictionary = self.binary("it") / "dict.en.txt"
            vocabulary = (
                "--joined-dictionary"
                if name == "it"
                else f"--srcdict {quote(dictionary)} --tgtdict {quote(dictionary)}"
            )
            self.flow.run(
                f"binarise-{name}",
                f"fairseq-preprocess -s de -t en --trainpref {quote(pieces / 'train')} --validpref "
                f"{quote(pieces / 'valid')} --testpref {quote(pieces / 'test')} --destdir {quote(self.binary(name))} "
                f"{vocabulary} --workers 2",
            )

    # --- systems ----------------------------------------------------------------------------------

    @property
    def base(self) -> Path:
        return self.work / "base" / "checkpoint_last.pt"

    def _train_base(self) -> None:
        self.flow.run(
            "train-base",
            f"fairseq-train {quote(self.binary('it'))} --save-dir {quote(self.base.parent)} --cpu --seed {SEED} "
            "--arch transformer --share-all-embeddings --encoder-layers 2 --decoder-layers 2 "
            "--encoder-embed-dim 160 --decoder-embed-dim 160 --encoder-ffn-embed-dim 640 --decoder-ffn-embed-dim 640 "
            "--encoder-attention-heads 4 --decoder-attention-heads 4 --dropout 0.1 "
            "--optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 "
            "--lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 300 "
            "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 2048 --max-update 1100 "
            "--no-epoch-checkpoints --disable-validation --log-format simple --log-interval 100",
        )

    def _generate(self, name: str, data: str, options: str, path: Path | None = None) -> str:
        return self.flow.run(
            name,
            f"fairseq-generate {quote(self.binary(data))} --user-dir {USER_DIR} --path {quote(path or self.base)} "
            f"--cpu --gen-subset test --beam 5 --batch-size 64 --remove-bpe sentencepiece --no-progress-bar {options}",
        )

    def _base_row(self, data: str, domain: str, split: str) -> None:
        output = self._generate(f"base-{data}", data, "--task translation --required-batch-size-multiple 1")
        self.rows.append(self._score(output, "base", data, domain, split))

    def _domain(self, name: str) -> None:
        domain, _, split = name.partition("-")
        self._base_row(name, domain, split or "by book")
        self.build(name)
        settings = self._settings(name)
        output = self._generate(f"knn-{name}", name, f"--task translation_knn {settings}")
        row = self._score(output, "kNN-MT", name, domain, split or "by book", name)
        if name == TRAINED_ON:
            row = replace(row, nll=self._nll(f"knn-{name}", name, self.base, settings))
        self.rows.append(row)

    def _trained(self, kind: str, name: str) -> None:
        """Train a combiner on the domain's validation text and translate with its checkpoint alone."""
        domain, _, split = name.partition("-")
        system, options = COMBINERS[kind]
        rows = []
        for seed in range(1, self.seeds + 1):
            run = f"{kind}-{name}-{seed}"
            directory = self.work / "combiners" / run
            self.flow.run(
                f"train-{run}",
                f"fairseq-train {quote(self.binary(name))} --user-dir {USER_DIR} --task translation_knn "
                f"--knn-mode train --knn-combiner {kind} --knn-k 32 --knn-datastore-path {quote(self.store(name))} "
                f"--knn-cache {quote(self.work / 'combiners' / f'cache-{name}')} --arch transformer "
                f"--finetune-from-model {quote(self.base)} --train-subset valid --valid-subset valid --cpu "
                f"--seed {seed} --criterion label_smoothed_cross_entropy --label-smoothing 0.001 --optimizer adam "
                "--adam-betas '(0.9, 0.98)' --clip-norm 1.0 --lr-scheduler inverse_sqrt --warmup-updates 100 "
                f"{options} --batch-size 32 --no-epoch-checkpoints --save-dir {quote(directory)} --log-format simple "
                "--log-interval 100 --num-workers 0",
            )
            path = directory / "checkpoint_best.pt"
            output = self._generate(f"knn-{run}", name, "--task translation_knn", path)
            row = self._score(output, system, name, domain, split)
            rows.append(replace(row, nll=self._nll(run, name, path)))
        entries = json.loads((self.store(name) / "manifest.json").read_text(encoding="utf-8"))["entries"]
        bleu = [row.bleu for row in rows]
        self.rows.append(
            replace(
                rows[0],
                bleu=round(statistics.mean(bleu), 1),
                chrf=round(statistics.mean(row.chrf for row in rows), 1),
                nll=round(statistics.mean(row.nll or 0.0 for row in rows), 3),
                seeds=len(rows),
                bleu_range=(min(bleu), max(bleu)) if len(rows) > 1 else None,
                entries=entries,
                k=32,
            )
        )

    def _nll(self, run: str, name: str, path: Path, options: str = "") -> float:
        """Mean negative log-likelihood of the test references, nats per token."""
        output = self.flow.run(
            f"score-{run}",
            f"fairseq-generate {quote(self.binary(name))} --user-dir {USER_DIR} --task translation_knn "
            f"--path {quote(path)} --cpu --gen-subset test --score-reference --max-tokens 4096 --no-progress-bar "
            f"{options}",
        )
        scores = [
            float(score) for line in re.findall(r"^P-\d+\t(.*)$", output, re.MULTILINE) for score in line.split(" ")
        ]
        return round(-statistics.mean(scores) * math.log(2), 3)  # fairseq prints logarithms to the base 2

    @property
    def _task(self) -> str:
        return f"--user-dir {USER_DIR} --task translation_knn --path {quote(self.base)} --cpu --no-progress-bar"

    def build(self, name: str) -> None:
        """The datastore of a domain and its index."""
        store = self.store(name)
        self.flow.run(
            f"build-{name}",
            f"fairseq-generate {quote(self.binary(name))} {self._task} --gen-subset train --score-reference "
            f"--knn-mode build_datastore --knn-datastore-path {quote(store)} --max-tokens 4096 --quiet",
        )
        self.flow.run(f"index-{name}", f"fairseq-knn build-index {quote(store)}")

    def store(self, name: str) -> Path:
        return self.work / "datastores" / name

    def _tuned(self, name: str) -> Path:
        return self.work / "tuned" / f"{name}.json"

    def _settings(self, name: str) -> str:
        """Choose k, lambda and temperature on the domain's validation data."""
        self._tuned(name).parent.mkdir(exist_ok=True)
        self.flow.run(
            f"tune-{name}",
            f"fairseq-knn tune {quote(self.binary(name))} {self._task} --knn-datastore-path {quote(self.store(name))} "
            f"--gen-subset valid --max-tokens 4096 --output {quote(self._tuned(name))}",
        )
        return self._flags(name)

    def _flags(self, name: str) -> str:
        best = json.loads(self._tuned(name).read_text(encoding="utf-8"))["best"]
        return (
            f"--knn-datastore-path {quote(self.store(name))} --knn-k {best['k']} --knn-lambda {best['weight']} "
            f"--knn-temperature {best['temperature']}"
        )

    def _forgetting(self) -> None:
        """What the foreign datastore costs in the base's own domain."""
        name = "medical-random"
        output = self._generate(f"forgetting-{name}", "it", f"--task translation_knn {self._flags(name)}")
        self.rows.append(self._score(output, "kNN-MT, medical datastore", "it", "it", "test", name))

    # --- results ----------------------------------------------------------------------------------

    def _score(self, output: str, system: str, data: str, domain: str, split: str, store: str | None = None) -> Row:
        hypotheses = {
            int(number): text for number, text in re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", output, re.MULTILINE)
        }
        references = (self.text(data) / "test.en").read_text(encoding="utf-8").splitlines()
        if sorted(hypotheses) != list(range(len(references))):
            raise CommandFailed(
                f"{len(hypotheses)} translations of {data} for {len(references)} references: sentences were lost"
            )
        ordered = [hypotheses[number] for number in range(len(references))]
        bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
        speed = re.search(r"([\d.]+) tokens/s\)", output)
        assert speed is not None
        row = Row(
            system=system,
            domain=domain,
            split=split,
            bleu=round(bleu.corpus_score(ordered, [references]).score, 1),
            chrf=round(chrf.corpus_score(ordered, [references]).score, 1),
            signature=f"{bleu.get_signature()}; chrF: {chrf.get_signature()}",
            sentences=len(references),
            tokens_per_s=round(float(speed[1]), 0),
            entries=0,
        )
        if store is None:
            return row
        best = json.loads(self._tuned(store).read_text(encoding="utf-8"))["best"]
        manifest = json.loads((self.store(store) / "manifest.json").read_text(encoding="utf-8"))
        return Row(
            **{
                **asdict(row),
                "entries": manifest["entries"],
                "k": best["k"],
                "knn_lambda": best["weight"],
                "temperature": best["temperature"],
            }
        )

    def _write(self, seconds: float) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        content = {"rows": [asdict(row) for row in self.rows]}
        (self.results / "quickstart.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        table = markdown(content["rows"])
        (self.results / "quickstart.md").write_text(table, encoding="utf-8")
        print(f"\n{table}\nwritten to {self.results}/quickstart.json and .md; this run took {seconds:.0f} s")


def markdown(rows: list[dict]) -> str:
    """The table, what its splits mean, and the metrics' signatures."""
    lines = [
        "| domain, split | system | BLEU | chrF | NLL | sentences | tokens/s | datastore entries | k, lambda, T |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        store = f"{row['entries']:,}" if row["entries"] else ""
        setting = f"{row['k']}, {row['knn_lambda']:g}, {row['temperature']:g}" if row["knn_lambda"] else ""
        if row["k"] and not setting:
            setting = f"{row['k']}, learned"
        bleu = f"{row['bleu']:.1f}"
        if row["bleu_range"]:
            bleu += " ({:.1f} to {:.1f})".format(*row["bleu_range"])
        nll = f"{row['nll']:.3f}" if row["nll"] is not None else ""
        lines.append(
            f"| {row['domain']}, {row['split']} | {row['system']} | {bleu} | {row['chrf']:.1f} | {nll} | "
            f"{row['sentences']} | {row['tokens_per_s']:.0f} | {store} | {setting} |"
        )
    lines += [
        "",
        *(f"- {name.replace('-', ', ')}: {what}." for name, (_, _, what) in DOMAINS.items()),
    ]
    lines += [
        "- it: the base's own domain; with the medical datastore and its lambda on, the model speaks medicine whatever "
        "it is given: use a datastore for text of its own domain."
    ]
    trained = [row for row in rows if row["k"] and not row["knn_lambda"]]
    if trained:
        seeds = trained[0]["seeds"]
        lines.append(
            "- NLL: nats per token of the test references. k, lambda and T of kNN-MT were chosen on the validation "
            "text, and adaptive kNN-MT and KSTER were trained on it"
            + (f"; theirs are means of {seeds} seeds, with the range of BLEU." if seeds > 1 else ".")
        )
    lines += ["", f"BLEU: {rows[0]['signature']}", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("quickstart"),
        help="data, models and logs (default: %(default)s)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where the table goes (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="trainings of every combiner, of which the table has the mean (default: %(default)s)",
    )
    args = parser.parse_args()
    try:
        Quickstart(args.work, args.results, args.seeds).run()
    except CommandFailed as failure:
        print(f"quickstart: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
