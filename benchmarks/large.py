"""The large setting: a transformer of the usual size, trained long enough that its hidden states mean something."""

from pathlib import Path

from workflow import Workflow, quote

from benchmarks.setting import USER_DIR, Setting

_LAYERS, _DIMENSION, _VOCABULARY = 6, 512, 32000
_UPDATES = 300
# Verses whose entries are the datastore (500,000), that are translated, and whose scoring is timed.
_STORED, _TRANSLATED, _SCORED = 16100, 256, 1200


class LargeSetting:
    """Its steps in order.

    Args:
        work: directory of everything it makes.
        flow: runs the commands.
        it, religious, medical: text of the corpora.
    """

    def __init__(self, work: Path, flow: Workflow, it: Path, religious: Path, medical: Path) -> None:
        self._work, self._flow = work, flow
        self._it, self._religious, self._medical = it, religious, medical
        self._pieces = work / "pieces"
        self._training = work / "bin" / "training"
        self._timed = work / "bin" / "timed"
        self._scored = work / "bin" / "scored"
        self._model = work / "model" / "checkpoint_last.pt"
        self._store = work / "datastore"

    def prepare(self) -> Setting:
        """Train the model and build the datastore, as far as that was not done before."""
        self._encode()
        self._binarise()
        self._train()
        setting = Setting(
            name="large",
            description=f"{_LAYERS}+{_LAYERS} layers, d = {_DIMENSION}, V = 32,000; IT and religious model, religious "
            "datastore and test set",
            model=self._model,
            data=self._timed,
            store=self._store,
            building=self._scored,
        )
        self._build(setting)
        return setting

    def _encode(self) -> None:
        joined, pieces, model = self._work / "text", self._pieces, self._work / "joint.model"
        joined.mkdir(parents=True, exist_ok=True)
        self._flow.run(
            "large-text",
            " && ".join(
                f"cat {quote(self._religious / f'train.{side}')} {quote(self._it / f'train.{side}')} "
                f"> {quote(joined / f'train.{side}')}"
                for side in ("de", "en")
            ),
        )
        text = " ".join(quote(part / f"train.{side}") for part in (joined, self._medical) for side in ("de", "en"))
        self._flow.run(
            "large-spm-train",
            f"python examples/spm.py train --model {quote(model)} --vocabulary {_VOCABULARY} {text}",
        )
        files = " ".join(
            f"{quote(part / f'{split}.{side}')} {quote(pieces / f'{split}.{side}')}"
            for part, split in ((joined, "train"), (self._religious, "test"))
            for side in ("de", "en")
        )
        self._flow.run("large-spm-encode", f"python examples/spm.py encode --model {quote(model)} {files}")

    def _binarise(self) -> None:
        pieces = self._pieces
        self._flow.run(
            "large-cut",
            " && ".join(
                f"head -n {sentences} {quote(pieces / f'{split}.{side}')} > {quote(pieces / f'{part}.{side}')}"
                for split, part, sentences in (
                    ("train", "stored", _STORED),
                    ("train", "scored", _SCORED),
                    ("test", "translated", _TRANSLATED),
                )
                for side in ("de", "en")
            ),
        )
        # All pieces, so that the output layer has its full size; fairseq adds the first three symbols itself.
        dictionary = quote(self._work / "dict.txt")
        self._flow.run(
            "large-dictionary",
            f"tail -n +4 {quote(self._work / 'joint.vocab')} | cut -f1 | sed 's/$/ 1/' > {dictionary}",
        )
        for directory, options in (
            (self._training, f"--trainpref {quote(pieces / 'train')}"),
            (self._timed, f"--trainpref {quote(pieces / 'stored')} --testpref {quote(pieces / 'translated')}"),
            (self._scored, f"--trainpref {quote(pieces / 'scored')}"),
        ):
            self._flow.run(
                f"large-binarise-{directory.name}",
                f"fairseq-preprocess -s de -t en {options} --srcdict {dictionary} --tgtdict {dictionary} "
                f"--destdir {quote(directory)} --workers 2",
            )

    def _train(self) -> None:
        # Interrupted, it goes on from the last 50 updates.
        self._flow.run(
            "large-train",
            f"fairseq-train {quote(self._training)} --user-dir {USER_DIR} --save-dir {quote(self._model.parent)} --cpu "
            f"--seed 1 --arch transformer --share-all-embeddings --encoder-layers {_LAYERS} --decoder-layers {_LAYERS} "
            f"--encoder-embed-dim {_DIMENSION} --decoder-embed-dim {_DIMENSION} "
            f"--encoder-ffn-embed-dim {4 * _DIMENSION} --decoder-ffn-embed-dim {4 * _DIMENSION} "
            "--encoder-attention-heads 8 --decoder-attention-heads 8 --encoder-normalize-before "
            "--decoder-normalize-before --dropout 0.1 --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0 "
            "--lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 100 "
            "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --max-tokens 1024 "
            f"--max-update {_UPDATES} --save-interval-updates 50 --keep-interval-updates 1 --no-epoch-checkpoints "
            "--disable-validation --log-format simple --log-interval 10",
        )

    def _build(self, setting: Setting) -> None:
        self._flow.run(
            "large-build",
            setting.generate(
                self._timed,
                "translation_knn",
                f"--gen-subset train --score-reference --knn-mode build_datastore --knn-datastore-path "
                f"{quote(self._store)} --max-tokens 4096 --knn-shard-sentences 1024",
            ),
        )
        self._flow.run("large-index", f"fairseq-knn build-index {quote(self._store)}")
