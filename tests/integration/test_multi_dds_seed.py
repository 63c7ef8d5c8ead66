"""The command line of the authors' MultiDDS script trains under stock fairseq-train, as the documentation has it."""

import re
import shlex
from pathlib import Path

from tests import cli, languages, toy
from tests.integration.test_multi_dds import checkpoint, rounds

# job_scripts of github.com/cindyxinyiwang/multiDDS, for eight related languages to English.
AUTHORS = """
    --task multilingual_translation
    --arch multilingual_transformer_iwslt_de_en
    --max-epoch 40
    --dataset-type "multi"
    --lang-pairs "aze-eng,tur-eng,bel-eng,rus-eng,glg-eng,por-eng,slk-eng,ces-eng"
    --no-epoch-checkpoints
    --distributed-world-size 1
    --share-decoder-input-output-embed --share-decoders --share-encoders
    --dropout 0.3 --attention-dropout 0.3 --relu-dropout 0.3 --weight-decay 0.0
    --left-pad-source 'True' --left-pad-target 'False'
    --optimizer 'adam' --adam-betas '(0.9, 0.98)' --lr-scheduler 'inverse_sqrt_decay'
    --warmup-init-lr 1e-7 --warmup-updates 4000 --lr 2e-4 --lr-shrink 0.8
    --criterion 'label_smoothed_cross_entropy' --label-smoothing 0.1
    --max-tokens 4800
    --update-freq 2
    --seed 2
    --max-source-positions 150 --max-target-positions 150
    --save-dir CHECKPOINTS
    --encoder-normalize-before --decoder-normalize-before
    --scale-norm
    --datasize-t 1
    --update-language-sampling 1000
    --data-actor 'base'
    --data-actor-lr 0.0001
    --data-actor-optim-step 200
    --utility-type 'ave'
    --datasize-t 1
    --pretrain-data-actor
    --pretrain-type "datasize"
    --log-interval 100
"""
# All that is not theirs.
OURS = {
    "--user-dir": "USER_DIR",
    "--task": "translation_multi_dds",
    "--arch": "transformer_iwslt_de_en",
    "--lr-scheduler": "inverse_sqrt",
}
SIZES = {"aze": 12, "tur": 40, "bel": 9, "rus": 44, "glg": 15, "por": 38, "slk": 24, "ces": 30}
# What makes it small and short; the last of two values of a flag counts.
SMALL = (
    *("--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 16, "--decoder-embed-dim", 16),
    *("--encoder-ffn-embed-dim", 16, "--decoder-ffn-embed-dim", 16, "--max-tokens", 100, "--num-workers", 0, "--cpu"),
    *("--update-language-sampling", 2, "--max-update", 2),
)


def documented() -> list[str]:
    """Flags of the training command in docs/multidds.md."""
    page = (cli.ROOT / "docs" / "multidds.md").read_text().replace("\\\n", "")
    pairs = re.search(r"^PAIRS=(.*)$", page, re.M)
    command = re.search(r"^fairseq-train DATA (.* --max-epoch 40 .*)$", page, re.M)
    assert pairs is not None
    assert command is not None
    return shlex.split(command[1].replace("$PAIRS", pairs[1]).replace("$USER_DIR", "USER_DIR"))


def by_flag(arguments: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for argument in arguments:
        if argument.startswith("--"):
            flag = argument
        values[flag] = "" if argument.startswith("--") else argument
    return values


def test_the_documented_command_is_the_authors() -> None:
    assert by_flag(documented()) == {**by_flag(shlex.split(AUTHORS)), **OURS}


def test_the_documented_command_trains(tmp_path: Path) -> None:
    data = languages.write(tmp_path / "data", SIZES, valid=4)
    toy.forget_other_trainings()
    places = {"USER_DIR": cli.PACKAGE, "CHECKPOINTS": tmp_path / "save"}
    arguments = [places.get(argument, argument) for argument in documented()]
    run = cli.call("fairseq-train", data, *arguments, *SMALL)
    assert run.status == 0, run.log[-2000:]
    (only,) = rounds(run)
    assert only["update"] == 2
    assert list(only["p"]) == [f"{name}-eng" for name in SIZES]
    # 200 steps of Adam at 0.0001 move a logit by 0.02 at most, and two of them apart by 0.04.
    for name, size in SIZES.items():
        assert abs(only["p"][f"{name}-eng"] / (size / sum(SIZES.values())) - 1) < 0.041
    assert any(name.endswith("norm.scale") for name in checkpoint(tmp_path / "save")["model"])
