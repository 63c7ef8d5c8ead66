"""Czech speech to English text: students learn from references, from an expert, and from its corrections. One table.

Everything is done by the commands this script prints: stock fairseq with
``--user-dir $(fairseq-knn path)``, and ``fairseq-knn``. They can be copied; run again, the script skips what is
done. See docs/imitkd.md.
"""

import argparse
import csv
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sacrebleu
from workflow import USER_DIR, CommandFailed, Workflow, peak_memory, quote, times

from fairseq_knn.storage.atomic import atomic_path

# What goes before a task's name: even stock's own need the plug-in to load checkpoints with this PyTorch.
TASK = f"--user-dir {USER_DIR} --task"
SEED = 1
CZECH, ENGLISH = "ces", "eng"
# Pieces of transcripts as the expert reads them, of translations, and of transcripts as a recogniser writes them.
PIECES = {CZECH: 6000, ENGLISH: 4000, "asr": 500}
UPDATES = {"expert": 1000, "asr": 700, "student": 600}
# Decoded together, in this order; real is missing where there is no acted speech.
HEARD = ("valid", "test", "real")
KNN = "--knn-k 8 --knn-lambda 0.3 --knn-temperature 10"
# What fairseq-generate says about a sentence.
TRANSLATION, SCORES = r"^D-(\d+)\t[^\t]*\t(.*)$", r"^P-(\d+)\t(.*)$"
STUDENTS = {
    # criterion: (in the table, options of its training)
    "label_smoothed_cross_entropy": ("NLL", "--label-smoothing 0.1"),
    "kd": ("word-KD", ""),
    "imit_kd": ("ImitKD-optimal", ""),
    "imit_kd_CE": ("ImitKD-full", ""),
}
_SMALL = (
    "--encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 512 --decoder-ffn-embed-dim 512 "
    "--encoder-attention-heads 4 --decoder-attention-heads 4 --decoder-layers 2 --dropout 0 "
    "--share-decoder-input-output-embed"
)
_SPEECH_MODEL = f"--arch s2t_transformer {_SMALL} --encoder-layers 4 --conv-channels 192"
_TEXT_MODEL = f"--arch transformer {_SMALL} --encoder-layers 2 --encoder-normalize-before --decoder-normalize-before"
_TRAINING = (
    "--optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 5.0 --lr-scheduler inverse_sqrt --no-epoch-checkpoints "
    "--disable-validation --log-format simple --log-interval 50 --num-workers 0 --cpu"
)


class Demo:
    """The steps in order; all paths are below *work*.

    Args:
        work: directory of everything it makes.
        results: where the table goes.
        seed: of all trainings.
    """

    def __init__(self, work: Path, results: Path, seed: int) -> None:
        self.work, self.results, self.seed = work, results, seed
        self.flow = Workflow(work)

    def run(self) -> None:
        print(f"the commands below can be copied after: source {Path(sys.prefix) / 'bin' / 'activate'}")
        self.prepare()
        self._warm_start()
        rows = [self._expert_row(), *self._student_rows()]
        best = max(rows[1:], key=lambda row: row["bleu_valid"])
        self._write([*rows, self._knn_row(best)])

    # --- data -------------------------------------------------------------------------------------

    @property
    def corpus(self) -> Path:
        return self.work / "corpus"

    @property
    def data(self) -> Path:
        """Manifests, dictionaries and configurations."""
        return self.work / "data"

    @property
    def binary(self) -> Path:
        """Text, for the expert."""
        return self.work / "bin"

    def pieces(self, name: str) -> Path:
        return self.work / f"{name}.model"

    def dictionary(self, name: str) -> Path:
        return self.data / f"dict.{name}.txt"

    def prepare(self) -> None:
        """Text and speech, pieces, binary text and configurations."""
        self.flow.run("corpus", f"fairseq-knn corpus speech {quote(self.corpus)}")
        self.data.mkdir(exist_ok=True)
        self._manifests()
        for name, size in PIECES.items():
            text = self.work / "transcripts.txt" if name == "asr" else self.corpus / f"train.{name}"
            self.flow.run(
                f"spm-train-{name}",
                f"python examples/spm.py train --model {quote(self.pieces(name))} --vocabulary {size} {quote(text)}",
            )
            # The first three are fairseq's own: <unk>, <s>, </s>.
            self.flow.run(
                f"dictionary-{name}",
                f"tail -n +4 {quote(self.pieces(name).with_suffix('.vocab'))} | cut -f 1 | sed 's/$/ 1/' > "
                f"{quote(self.dictionary(name))}",
            )
        for name in (ENGLISH, "asr"):
            with atomic_path(self.data / f"{name}.yaml") as path:
                path.write_text(self._configuration(name), encoding="utf-8")
        self._binarise()

    def _manifests(self) -> None:
        """Those of the corpus, one of all that is decoded, one for recognition, and the text of acted speech."""
        heard = [self.corpus / f"{split}.tsv" for split in HEARD]
        for name in ("train", *(path.stem for path in heard if path.exists())):
            rows = read_manifest(self.corpus / f"{name}.tsv")
            write_manifest(self.data / f"{name}.tsv", rows)
        write_manifest(self.data / "heard.tsv", [row for path in heard if path.exists() for row in read_manifest(path)])
        rows = read_manifest(self.corpus / "train.tsv")
        transcripts = [row["src_text"].lower() for row in rows]
        write_manifest(
            self.data / "train_asr.tsv",
            [{**row, "tgt_text": text} for row, text in zip(rows, transcripts, strict=True)],
        )
        with atomic_path(self.work / "transcripts.txt") as path:
            path.write_text("".join(f"{text}\n" for text in transcripts), encoding="utf-8")

    def _configuration(self, name: str) -> str:
        """What stock's speech_to_text reads."""
        model = self.pieces(name).absolute()
        return "".join(
            f"{line}\n"
            for line in (
                f"audio_root: {json.dumps(str(self.corpus.absolute()))}",
                f"vocab_filename: dict.{name}.txt",
                f"bpe_tokenizer: {{bpe: sentencepiece, sentencepiece_model: {json.dumps(str(model))}}}",
                "input_feat_per_channel: 80",
                "transforms: {'*': [utterance_cmvn]}",
            )
        )

    def _binarise(self) -> None:
        """The text of all sets; the second test set is what is decoded of speech, so that experts can be compared."""
        for language, column in ((CZECH, "src_text"), (ENGLISH, "tgt_text")):
            with atomic_path(self.work / f"heard.{language}") as path:
                rows = read_manifest(self.data / "heard.tsv")
                path.write_text("".join(f"{row[column]}\n" for row in rows), encoding="utf-8")
            sources = [self.corpus / f"train.{language}", self.work / f"heard.{language}"]
            named = " ".join(f"{quote(one)} {quote(self.work / 'pieces' / one.name)}" for one in sources)
            self.flow.run(
                f"spm-{language}", f"python examples/spm.py encode --model {quote(self.pieces(language))} {named}"
            )
        pieces = self.work / "pieces"
        self.flow.run(
            "binarise",
            f"fairseq-preprocess -s {CZECH} -t {ENGLISH} --trainpref {quote(pieces / 'train')} "
            f"--testpref {quote(pieces / 'heard')} --srcdict {quote(self.dictionary(CZECH))} "
            f"--tgtdict {quote(self.dictionary(ENGLISH))} --destdir {quote(self.binary)}",
        )

    # --- models -----------------------------------------------------------------------------------

    def model(self, system: str) -> Path:
        return self.work / system / "checkpoint_last.pt"

    @property
    def start(self) -> Path:
        """What all students begin with: the recogniser's encoder, the expert's decoder."""
        return self.work / "start.pt"

    def _warm_start(self) -> None:
        """An expert in text, and a recogniser of speech, side by side."""
        self.flow.run_all(
            {
                "train-asr": f"fairseq-train {quote(self.data)} {TASK} speech_to_text --config-yaml asr.yaml "
                f"--train-subset train_asr --save-dir {quote(self.model('asr').parent)} --seed {self.seed} "
                f"{_SPEECH_MODEL} --criterion label_smoothed_cross_entropy_with_ctc --ctc-weight 1.0 "
                f"--label-smoothing 0.1 --max-tokens 10000 --max-update {UPDATES['asr']} --lr 3e-3 "
                f"--warmup-updates 150 {_TRAINING}",
                "train-expert": f"fairseq-train {quote(self.binary)} {TASK} translation -s {CZECH} -t {ENGLISH} "
                f"--save-dir {quote(self.model('expert').parent)} --seed {self.seed} {_TEXT_MODEL} "
                f"--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 1536 "
                f"--max-update {UPDATES['expert']} --lr 3e-3 --warmup-updates 200 {_TRAINING}",
            }
        )
        self.flow.run(
            "start",
            f"python examples/st_models.py start --encoder {quote(self.model('asr'))} "
            f"--decoder {quote(self.model('expert'))} {quote(self.start)}",
        )

    def _students(self) -> None:
        """The same updates, from the same start, with the same batches."""
        expert = (
            f"--expert {quote(self.model('expert'))} --expert-vocab-src {quote(self.dictionary(CZECH))} "
            f"--expert-vocab-tgt {quote(self.dictionary(ENGLISH))} --bpe-codes {quote(self.pieces(CZECH))}"
        )
        tasks = {True: f"{TASK} speech_to_text_imitkd {expert}", False: f"{TASK} speech_to_text"}
        self.flow.run_all(
            {
                f"train-{student}": f"fairseq-train {quote(self.data)} {tasks['kd' in student]} "
                f"--config-yaml {ENGLISH}.yaml --train-subset train --save-dir {quote(self.model(student).parent)} "
                f"--seed {self.seed} {_SPEECH_MODEL} --finetune-from-model {quote(self.start)} "
                f"--criterion {student} {options} --max-tokens 10000 --max-update {UPDATES['student']} --lr 2e-3 "
                f"--warmup-updates 100 {_TRAINING}"
                for student, (_, options) in STUDENTS.items()
            }
        )

    # --- figures ----------------------------------------------------------------------------------

    def _expert_row(self) -> dict[str, Any]:
        """Of the expert, which reads transcripts instead of hearing them."""
        common = (
            f"fairseq-generate {quote(self.binary)} {TASK} translation -s {CZECH} -t {ENGLISH} --gen-subset test "
            f"--path {quote(self.model('expert'))} --cpu --max-tokens 4000 --no-progress-bar "
            "--required-batch-size-multiple 1"
        )
        outputs = self.flow.run_all(
            {
                "test-expert": f"{common} --beam 5 --remove-bpe sentencepiece",
                "score-expert": f"{common} --score-reference",
            }
        )
        log = (self.flow.logs / "train-expert.log").read_text(encoding="utf-8")
        return self._row("expert (reads transcripts)", outputs["test-expert"], outputs["score-expert"], log)

    def _student_rows(self) -> list[dict[str, Any]]:
        self._students()
        commands = {}
        for student in STUDENTS:
            common = f"{self._listen} {TASK} speech_to_text --path {quote(self.model(student))}"
            commands[f"test-{student}"] = f"{common} --beam 5"
            commands[f"score-{student}"] = f"{common} --score-reference"
            commands[f"agreement-{student}"] = (
                f"python examples/st_models.py agreement {quote(self.data)} --config-yaml {ENGLISH}.yaml --split test "
                f"--student {quote(self.model(student))} --expert {quote(self.model('expert'))} "
                f"--pieces {quote(self.pieces(CZECH))}"
            )
        outputs = self.flow.run_all(commands)
        rows = []
        for student, (name, _) in STUDENTS.items():
            log = (self.flow.logs / f"train-{student}.log").read_text(encoding="utf-8")
            row = self._row(name, outputs[f"test-{student}"], outputs[f"score-{student}"], log)
            rows.append({**row, "criterion": student, "agreement": agreement(outputs[f"agreement-{student}"])})
        return rows

    @property
    def _listen(self) -> str:
        return (
            f"fairseq-generate {quote(self.data)} --config-yaml {ENGLISH}.yaml --gen-subset heard --cpu "
            "--max-tokens 20000 --no-progress-bar --required-batch-size-multiple 1"
        )

    def _knn_row(self, best: Mapping[str, Any]) -> dict[str, Any]:
        """Of the student that does best on the valid set, with a datastore of what it learned from."""
        store = self.work / "datastore"
        plugin = f"{TASK} speech_to_text_knn --path {quote(self.model(best['criterion']))}"
        self.flow.run(
            "datastore",
            f"fairseq-generate {quote(self.data)} --config-yaml {ENGLISH}.yaml --gen-subset train --cpu "
            f"--max-tokens 20000 --no-progress-bar {plugin} --score-reference --quiet --knn-mode build_datastore "
            f"--knn-datastore-path {quote(store)}",
        )
        self.flow.run("index", f"fairseq-knn build-index {quote(store)}")
        common = f"{self._listen} {plugin} --knn-datastore-path {quote(store)} {KNN}"
        outputs = self.flow.run_all({"test-knn": f"{common} --beam 5", "score-knn": f"{common} --score-reference"})
        return self._row(f"{best['system']} + kNN", outputs["test-knn"], outputs["score-knn"], None)

    def _row(self, system: str, translated: str, scored: str, log: str | None) -> dict[str, Any]:
        """One line of the table; *log* is of the training."""
        rows = {split: read_manifest(self.data / f"{split}.tsv") for split in HEARD if self._has(split)}
        hypotheses = by_number(translated, TRANSLATION)
        scores = by_number(scored, SCORES)
        expected = sum(map(len, rows.values()))
        if not len(hypotheses) == len(scores) == expected:
            raise CommandFailed(f"{len(hypotheses)} translations for {expected} references: sentences were lost")
        result: dict[str, Any] = {"system": system, "agreement": None, **training(log)}
        start = 0
        bleu = sacrebleu.BLEU()
        for split, references in rows.items():
            span = slice(start, start := start + len(references))
            texts = [row["tgt_text"] for row in references]
            result[f"bleu_{split}"] = round(bleu.corpus_score(hypotheses[span], [texts]).score, 2)
            result[f"nll_{split}"] = nll(scores[span])
        return {**result, "signature": str(bleu.get_signature())}

    def _has(self, split: str) -> bool:
        return (self.corpus / f"{split}.tsv").exists()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        content = {
            "rows": rows,
            "sentences": {split: len(read_manifest(self.data / f"{split}.tsv")) for split in HEARD if self._has(split)},
            "updates": UPDATES,
            "seed": self.seed,
            "seconds": round(self.flow.seconds),
            "processor_seconds": round(self.flow.processor_seconds),
        }
        self.results.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.results / "demo_st.json") as path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        table = markdown(content)
        with atomic_path(self.results / "demo_st.md") as path:
            path.write_text(table, encoding="utf-8")
        print(f"\n{table}\nwritten to {self.results}/demo_st.json and .md")


def read_manifest(path: Path) -> list[dict[str, str]]:
    """The rows of a manifest, as stock reads them."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def write_manifest(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with atomic_path(path) as temporary:
        lines = [list(rows[0]), *(row.values() for row in rows)]
        temporary.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def by_number(output: str, pattern: str) -> list[str]:
    """What fairseq-generate says about each sentence, in the order of the data."""
    found = {int(number): text for number, text in re.findall(pattern, output, re.MULTILINE)}
    return [found[number] for number in sorted(found)]


def nll(scores: Sequence[str]) -> float:
    """Nats a token, of the logarithms (to base 2) that fairseq-generate gives for the tokens of each sentence."""
    values = [float(score) for sentence in scores for score in sentence.split()]
    return round(-sum(values) * math.log(2) / len(values), 3)


def agreement(output: str) -> float:
    """What st_models.py found."""
    found = re.search(r"^agreement: ([\d.]+)$", output, re.MULTILINE)
    assert found is not None
    return float(found[1])


def training(log: str | None) -> dict[str, Any]:
    """What fairseq-train took; nothing without a training."""
    if log is None:
        return {"updates": None, "seconds_per_update": None, "mebibytes": None}
    updates = max(int(number) for number in re.findall(r"num_updates[ =](\d+)", log))
    return {
        "updates": updates,
        "seconds_per_update": round(times(log)[1] / updates, 3),
        "mebibytes": round(peak_memory(log)),
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The table, and what its columns mean."""
    sentences = content["sentences"]
    acted = "real" in sentences
    lines = [
        f"| system | NLL | BLEU |{' BLEU, actors |' if acted else ''} as the expert | s/update | MiB |",
        f"|---|{'---:|' * (6 if acted else 5)}",
    ]
    for row in content["rows"]:
        cells = [
            row["system"],
            f"{row['nll_test']:.2f}",
            f"{row['bleu_test']:.1f}",
            *([f"{row['bleu_real']:.1f}"] if acted else []),
            "" if row["agreement"] is None else f"{row['agreement']:.0%}",
            "" if row["seconds_per_update"] is None else f"{row['seconds_per_update']:.2f}",
            "" if row["mebibytes"] is None else f"{row['mebibytes']:,}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{sentences['test']} sentences of interface text, read aloud by a synthetic voice"
            + (f"; {sentences['real']} lines of a game's dialogue, spoken by actors" if acted else "")
            + ". NLL: nats a token of the references. As the expert: where the first choice after a reference prefix "
            "is the expert's, who reads the transcript. Seconds of one processor, start included; memory at most.",
            "",
            content["rows"][0]["signature"],
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, what in (
        ("--work", "demo-st", "data, models and logs"),
        ("--results", "results", "where the table goes"),
    ):
        parser.add_argument(name, type=Path, default=Path(default), help=f"{what} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of all trainings (default: %(default)s)")
    args = parser.parse_args()
    try:
        Demo(args.work, args.results, args.seed).run()
    except CommandFailed as failure:
        print(f"demo-st: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
