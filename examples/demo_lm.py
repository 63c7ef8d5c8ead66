"""A language model meets a domain it never saw: base model, datastore, clusters, one table and one picture.

Everything is done by the commands this script prints: stock fairseq with
``--user-dir $(fairseq-knn path)``, and ``fairseq-knn``. They can be copied; run again, the script skips what is
done. See docs/knn-lm.md.
"""

import argparse
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retomaton_picture import draw_sweep
from workflow import USER_DIR, CommandFailed, Workflow, quote

from fairseq_knn.corpora import overlap
from fairseq_knn.storage.atomic import atomic_path

SEED = 1
BASE_TEXT, DOMAIN = "wiki", "bible-en"
NAMES = {BASE_TEXT: "Wikipedia", DOMAIN: "Bible"}
# What is read at a time: 256 pieces of context alone, then 256 that are scored.
BLOCK, CONTEXT = 512, 256
CLUSTERS = "kmeans"
MAX_KNNS = 256
ALWAYS = 9_999_999  # --knn-min-knns that searches at every step
SWEEP = (1, 4, 16, ALWAYS)
SAVED = 0.55  # at least, on the validation text, by the setting that is chosen from the sweep: half, with a margin
FINE_TUNED_LAMBDA = 0.25
PROMPTS, PROMPT, LENGTH = 64, 16, 80  # how many are continued; pieces of each, and of its continuation


@dataclass(frozen=True)
class Store:
    """A datastore, the model it belongs to, and how it is mixed in."""

    model: str
    path: Path
    k: int
    knn_lambda: float
    temperature: float

    @property
    def flags(self) -> str:
        return (
            f"--knn-datastore-path {quote(self.path)} --knn-k {self.k} --knn-lambda {self.knn_lambda:g} "
            f"--knn-temperature {self.temperature:g}"
        )


@dataclass(frozen=True)
class Walk:
    """How RetoMaton walks."""

    min_knns: int
    clusters: bool

    @property
    def name(self) -> str:
        least = "always" if self.min_knns == ALWAYS else str(self.min_knns)
        return f"retomaton{'-clusters' if self.clusters else ''}-{least}"

    @property
    def flags(self) -> str:
        named = f" --knn-clusters {CLUSTERS}" if self.clusters else ""
        return f"--knn-retomaton --knn-min-knns {self.min_knns} --knn-max-knns {MAX_KNNS}{named}"


@dataclass(frozen=True)
class Row:
    """One line of the table; times of searches are for one query."""

    system: str
    text: str
    perplexity: float
    tokens: int
    tokens_per_s: float
    saved: float | None = None
    search_ms: float | None = None
    model: str | None = None
    k: int | None = None
    knn_lambda: float | None = None
    temperature: float | None = None
    min_knns: int | None = None
    clusters: bool | None = None


@dataclass(frozen=True)
class Generation:
    """What continuing the prompts cost."""

    ms_per_piece: float
    saved: float | None = None


class Demo:
    """The steps in order; all paths are below *work*.

    Args:
        work: directory of everything it makes.
        results: where the table goes.
        pictures: where the picture goes.
    """

    def __init__(self, work: Path, results: Path, pictures: Path) -> None:
        self.work, self.results, self.pictures = work, results, pictures
        self.flow = Workflow(work)
        self.rows: list[Row] = []

    def run(self) -> None:
        print(f"the commands below can be copied after: source {Path(sys.prefix) / 'bin' / 'activate'}")
        self._corpora()
        self._binarise()
        self._train_base()
        self._plain("base", BASE_TEXT, "base")
        self._plain("base", DOMAIN, "base")
        self._build("base")
        self._cluster("base")
        store = self._tuned("base")
        sweep = self._sweep(store)
        chosen = best_saving(sweep)
        self._consulting("kNN-LM", store)
        self._consulting("RetoMaton", store, Walk(1, clusters=False))
        for min_knns in dict.fromkeys((chosen, ALWAYS)):
            self._consulting("RetoMaton, clusters", store, Walk(min_knns, clusters=True))
        generation = self._generate(store, Walk(chosen, clusters=True))
        self._fine_tune()
        self._plain("fine-tuned", DOMAIN, "fine-tuned base")
        self._build("fine-tuned")
        k, temperature = store.k, store.temperature
        tuned = Store("fine-tuned", self.store("fine-tuned"), k, FINE_TUNED_LAMBDA, temperature)
        self._consulting("fine-tuned base, kNN-LM", tuned)
        self._consulting("fine-tuned base, RetoMaton", tuned, Walk(1, clusters=False))
        self._write(sweep, generation)

    # --- data -------------------------------------------------------------------------------------

    def text(self, name: str) -> Path:
        return self.work / "text" / name

    def binary(self, name: str) -> Path:
        return self.work / "bin" / name

    @property
    def pieces(self) -> Path:
        return self.work / f"{BASE_TEXT}.model"

    def _corpora(self) -> None:
        """No test line may occur in any text a system learned from."""
        for name in NAMES:
            self.flow.run(f"corpus-{name}", f"fairseq-knn corpus {name} {quote(self.text(name))}")
        for tested in NAMES:
            for learned in NAMES:
                if shared := overlap(self.text(tested), self.text(learned)):
                    raise CommandFailed(
                        f"{len(shared)} test lines of {tested} occur in the training text of {learned}, the first: "
                        f"{min(shared)!r}: the figures would be worthless"
                    )
        print("\nno test line occurs in the text a system learned from", flush=True)

    def _binarise(self) -> None:
        """The pieces are learned from the text of the base alone: nobody knew of the other domain."""
        self.flow.run(
            "spm-train",
            f"python examples/spm.py train --model {quote(self.pieces)} --vocabulary 6000 "
            f"{quote(self.text(BASE_TEXT) / 'train.en')}",
        )
        dictionary = f"--srcdict {quote(self.binary(BASE_TEXT) / 'dict.txt')}"
        for name in NAMES:
            pieces = self.work / "pieces" / name
            files = [(self.text(name) / f"{split}.en", pieces / split) for split in ("train", "valid", "test")]
            named = " ".join(quote(path) for pair in files for path in pair)
            self.flow.run(f"spm-{name}", f"python examples/spm.py encode --model {quote(self.pieces)} {named}")
            self.flow.run(
                f"binarise-{name}",
                f"fairseq-preprocess --only-source --trainpref {quote(pieces / 'train')} --validpref "
                f"{quote(pieces / 'valid')} --testpref {quote(pieces / 'test')} --destdir {quote(self.binary(name))} "
                f"{'' if name == BASE_TEXT else dictionary} --workers 2",
            )

    # --- models -----------------------------------------------------------------------------------

    def model(self, name: str) -> Path:
        return self.work / name / "checkpoint_last.pt"

    def _train_base(self) -> None:
        self._train("base", BASE_TEXT, "--lr 3e-3 --warmup-updates 200 --max-update 800")

    def _fine_tune(self) -> None:
        start = f"--finetune-from-model {quote(self.model('base'))}"
        self._train("fine-tuned", DOMAIN, f"{start} --lr 1e-3 --warmup-updates 50 --max-update 250")

    def _train(self, name: str, text: str, options: str) -> None:
        self.flow.run(
            f"train-{name}",
            f"fairseq-train {quote(self.binary(text))} --task language_modeling --save-dir "
            f"{quote(self.model(name).parent)} --cpu --seed {SEED} --arch transformer_lm "
            "--share-decoder-input-output-embed --decoder-layers 2 --decoder-embed-dim 128 --decoder-input-dim 128 "
            "--decoder-output-dim 128 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4 --dropout 0.1 "
            "--optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 --lr-scheduler inverse_sqrt "
            f"--tokens-per-sample {BLOCK} --sample-break-mode none --max-tokens 2048 {options} --no-epoch-checkpoints "
            "--disable-validation --log-format simple --log-interval 100 --num-workers 0",
        )

    # --- datastores -------------------------------------------------------------------------------

    def store(self, model: str) -> Path:
        return self.work / "datastores" / model

    def _read(self, model: str, command: str = "fairseq-eval-lm") -> str:
        """The beginning of a command that consults or builds a datastore of the domain's text."""
        return (
            f"{command} {quote(self.binary(DOMAIN))} --user-dir {USER_DIR} --task language_modeling_knn --path "
            f"{quote(self.model(model))} --cpu --no-progress-bar --sample-break-mode none --tokens-per-sample {BLOCK}"
        )

    def _build(self, model: str) -> None:
        store = quote(self.store(model))
        self.flow.run(
            f"build-{model}",
            f"{self._read(model)} --gen-subset train --knn-mode build_datastore --knn-datastore-path {store} "
            "--max-tokens 8192",
        )
        self.flow.run(f"index-{model}", f"fairseq-knn build-index {store}")

    def _cluster(self, model: str) -> None:
        self.flow.run(
            f"cluster-{model}",
            f"fairseq-knn cluster {quote(self.store(model))} --method kmeans --num-clusters 8000 --sample 100000 "
            f"--iterations 8 --name {CLUSTERS}",
        )

    def _tuned(self, model: str) -> Store:
        """k, lambda and temperature of the lowest perplexity on the validation text."""
        output = self.work / "tuned.json"
        self.flow.run(
            f"tune-{model}",
            f"{self._read(model, 'fairseq-knn tune')} --knn-datastore-path {quote(self.store(model))} --gen-subset "
            f"valid --max-tokens 8192 --ks 64 256 1024 --lambdas 0.25 0.4 0.5 0.6 0.7 0.8 "
            f"0.9 --temperatures 1 3 10 30 --output {quote(output)}",
        )
        best = json.loads(output.read_text(encoding="utf-8"))["best"]
        return Store(model, self.store(model), best["k"], best["weight"], best["temperature"])

    # --- perplexity -------------------------------------------------------------------------------

    def _evaluate(self, name: str, model: str, split: str, options: str) -> str:
        return self.flow.run(
            name,
            f"{self._read(model)} --gen-subset {split} --context-window {CONTEXT} --max-tokens 16384 {options}",
        )

    def _plain(self, model: str, text: str, system: str) -> None:
        output = self.flow.run(
            f"{model}-{text}",
            f"fairseq-eval-lm {quote(self.binary(text))} --path {quote(self.model(model))} --cpu --no-progress-bar "
            f"--gen-subset test --sample-break-mode none --tokens-per-sample {BLOCK} --context-window {CONTEXT} "
            "--max-tokens 4096 --required-batch-size-multiple 1",
        )
        self.rows.append(row(output, system, NAMES[text]))

    def _consulting(self, system: str, store: Store, walk: Walk | None = None) -> None:
        name = f"test-{store.model}-{walk.name if walk else 'knn'}"
        output = self._evaluate(name, store.model, "test", f"{store.flags} {walk.flags if walk else ''}")
        self.rows.append(row(output, system, NAMES[DOMAIN], store, walk))

    def _sweep(self, store: Store) -> list[Row]:
        """kNN-LM, and RetoMaton with and without clusters for every minimum, on one batch of the validation text."""
        walks = [None, *(Walk(least, clusters) for clusters in (False, True) for least in SWEEP)]
        rows = []
        for walk in walks:
            name = f"valid-{walk.name if walk else 'knn'}"
            options = f"--num-shards 2 --shard-id 0 {store.flags} {walk.flags if walk else ''}"
            output = self._evaluate(name, store.model, "valid", options)
            rows.append(row(output, "RetoMaton" if walk else "kNN-LM", NAMES[DOMAIN], store, walk))
        return rows

    # --- generation -------------------------------------------------------------------------------

    def _generate(self, store: Store, walk: Walk) -> dict[str, Generation]:
        """Milliseconds for a generated piece: the same prompts, the same datastore and index."""
        prompts = self.work / "prompts"
        lines = (self.work / "pieces" / DOMAIN / "test").read_text(encoding="utf-8").splitlines()
        long_enough = [line.split() for line in lines if len(line.split()) >= PROMPT]
        every = len(long_enough) // PROMPTS
        text = "".join(f"{' '.join(pieces[:PROMPT])}\n" for pieces in long_enough[::every][:PROMPTS])
        prompts.write_text(text, encoding="utf-8")
        systems = {"base": "--knn-lambda 0", "kNN-LM": "", "RetoMaton, clusters": walk.flags}
        found = {}
        for system, flags in systems.items():
            name = f"generate-{'knn' if system == 'kNN-LM' else system.partition(',')[0].lower()}"
            output = self.flow.run(
                name,
                f"{self._read(store.model, 'fairseq-interactive')} --input {quote(prompts)} --buffer-size {PROMPTS} "
                f"--batch-size {PROMPTS} --beam 1 --sampling --sampling-topk 10 --seed {SEED} "
                f"--min-len {PROMPT + LENGTH} --max-len-a 0 --max-len-b {PROMPT + LENGTH} {store.flags} {flags}",
            )
            found[system] = generation(output)
        return found

    # --- results ----------------------------------------------------------------------------------

    def _write(self, sweep: list[Row], generated: dict[str, Generation]) -> None:
        content = {
            "rows": [asdict(row) for row in self.rows],
            "sweep": [asdict(row) for row in sweep],
            "generation": {system: asdict(figures) for system, figures in generated.items()},
            "entries": json.loads((self.store("base") / "manifest.json").read_text(encoding="utf-8"))["entries"],
            "seconds": round(self.flow.seconds),
            "processor_seconds": round(self.flow.processor_seconds),
        }
        self.results.mkdir(parents=True, exist_ok=True)
        self.pictures.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.results / "demo_lm.json") as path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        table = markdown(content)
        with atomic_path(self.results / "demo_lm.md") as path:
            path.write_text(table, encoding="utf-8")
        draw_sweep(content["sweep"], self.pictures / "demo_lm.png")
        print(f"\n{table}\nwritten to {self.results}/demo_lm.json and .md, picture: {self.pictures}/demo_lm.png")


def figures(output: str) -> dict[str, Any]:
    """The figures of the closing line; none of a run without a datastore."""
    found = re.findall(r"processed.* \| (\{.*\})$", output, re.MULTILINE)
    return json.loads(found[-1]) if found else {}


def row(output: str, system: str, text: str, store: Store | None = None, walk: Walk | None = None) -> Row:
    """One line, from what fairseq-eval-lm says."""
    perplexity = re.search(r"Perplexity: ([\d.]+)", output)
    speed = re.search(r"Evaluated ([\d,]+) tokens in [\d.]+s \(([\d.]+) tokens/s\)", output)
    assert perplexity is not None
    assert speed is not None
    told = figures(output)
    queries = told.get("knn_queries")
    return Row(
        system=system,
        text=text,
        perplexity=float(perplexity[1]),
        tokens=int(speed[1].replace(",", "")),
        tokens_per_s=float(speed[2]),
        saved=told.get("knn_foss") if walk else None,
        # Told for one search, which is of all queries of a batch, or of a step of RetoMaton.
        search_ms=round(told["knn_search_ms"] * told["knn_searches"] / queries, 3) if queries else None,
        model=store.model if store else None,
        k=store.k if store else None,
        knn_lambda=store.knn_lambda if store else None,
        temperature=store.temperature if store else None,
        min_knns=walk.min_knns if walk else None,
        clusters=walk.clusters if walk else None,
    )


def generation(output: str) -> Generation:
    """What fairseq-interactive says: the time without loading, over the pieces that came after the prompts."""
    seconds = re.search(r"translation time: ([\d.]+)", output)
    assert seconds is not None
    continued = [line.split("\t")[2].split() for line in output.splitlines() if line.startswith("H-")]
    pieces = sum(len(text) - PROMPT for text in continued)
    return Generation(round(1000 * float(seconds[1]) / pieces, 3), figures(output).get("knn_foss"))


def best_saving(sweep: list[Row]) -> int:
    """The --knn-min-knns of the lowest perplexity with clusters, among those that save enough searches."""
    saving = [one for one in sweep if one.clusters and one.saved is not None and one.saved >= SAVED]
    if not saving:
        raise CommandFailed(
            f"no setting saves {SAVED:.0%} of the searches: the sweep has {[one.saved for one in sweep]}"
        )
    return min(saving, key=lambda one: one.perplexity).min_knns or 1


def markdown(content: dict[str, Any]) -> str:
    """The table, and what its columns mean."""
    lines = [
        "| text | system | perplexity | searches saved | tokens/s | a search, ms | k, lambda, T | min-knns |",
        "|---|---|---:|---:|---:|---:|---|---:|",
    ]
    for one in content["rows"]:
        setting = f"{one['k']}, {one['knn_lambda']:g}, {one['temperature']:g}" if one["k"] else ""
        saved = f"{one['saved']:.0%}" if one["saved"] is not None else ""
        search = f"{one['search_ms']:.2f}" if one["search_ms"] is not None else ""
        least = "always" if one["min_knns"] == ALWAYS else one["min_knns"] or ""
        lines.append(
            f"| {one['text']} | {one['system']} | {one['perplexity']:.2f} | {saved} | {one['tokens_per_s']:.0f} | "
            f"{search} | {setting} | {least} |"
        )
    costs = ", ".join(
        f"{system} {cost['ms_per_piece']:.2f} ms"
        + (f" ({cost['saved']:.0%} of the searches saved)" if cost["saved"] else "")
        for system, cost in content["generation"].items()
    )
    return "\n".join([*lines, "", f"Generation, time per piece: {costs}.", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("--work", "demo-lm", "data, models and logs"),
        ("--results", "results", "where the table goes"),
        ("--pictures", "docs/images", "where the picture goes"),
    ):
        parser.add_argument(name, type=Path, default=Path(default), help=f"{what} (default: %(default)s)")
    args = parser.parse_args()
    try:
        Demo(args.work, args.results, args.pictures).run()
    except CommandFailed as failure:
        print(f"demo-lm: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
