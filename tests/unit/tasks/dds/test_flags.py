"""The flags of the authors' program: what the documentation says of each is what happens."""

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.dds.checks import check_dds
from fairseq_knn.tasks.dds.flags import REFUSED, WITHOUT_EFFECT, Refused, add_dds_arguments, samples_languages
from tests import cli

DOCS = Path(__file__).parents[4] / "docs"
PAGE, OTHERS_PAGE = (DOCS / "multidds.md").read_text(), (DOCS / "from-multidds.md").read_text()

# Of fairseq/options.py of github.com/cindyxinyiwang/multiDDS, last version and history; without stock's.
THEIRS = """
    --dataset-type --update-language-sampling --extra-update-language-sampling --data-actor --extra-data-actor
    --data-actor-lr --data-actor-optim-step --data-actor-embed-dim --lan-embed-dim --data-actor-model-embed
    --data-actor-embed-grad --embedding-file --out-score-type --data-actor-multilin --utility-type --switch-obj-epoch
    --grad-sim --loss-steps --scale-reward --baseline --language-weight --loss-weight --exact-update --discount-grad
    --a0 --a1 --no-dev --data-actor-step-update --pretrain-data-actor --pretrain-type --feature-type --datasize-t
    --alpha-p --sample-instance --sample-tag-prob --lan-dists --data-condition --eval-lang-pairs --eval-bleu
    --only-load-data-actor --layerwise-dds --scale-norm --fix-norm --data-filter-percentage --select-by-dds-epoch
    --random-data-filter --random-data-filter-by-len --lr-shrink --lr-threshold --share-encoders --share-decoders
"""

_ROW = re.compile(r"^\| `(--[\w-]+)` \|([^|]*)\|([^|]*)\|$", re.MULTILINE)
# Flags that act here, with default and meaning; the others, with what becomes of them and why.
ROWS = {flag: ("here", default.strip(), text.strip()) for flag, default, text in _ROW.findall(PAGE)}
OTHERS = {flag: (state.strip(), "", text.strip()) for flag, state, text in _ROW.findall(OTHERS_PAGE)}
assert not ROWS.keys() & OTHERS.keys()
ROWS |= OTHERS
UNCHANGED = re.findall(r"`(--[\w-]+)`", re.findall(r"Stock's, and the same: (.*?)\n\n", OTHERS_PAGE, re.S)[0])


def own_parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    add_dds_arguments(parser)
    return parser


OWN = {action.option_strings[-1]: action for action in own_parser()._actions}


def read(*arguments: object) -> Namespace:
    """Settings of a training with these flags, and stock's that are looked at."""
    stock = {"sampling_method": "concat", "ddp_backend": "pytorch_ddp"}
    return own_parser().parse_args([str(argument) for argument in arguments], Namespace(**stock))


def refusal(*arguments: object, **stock: object) -> str:
    """The sentence with which they are refused."""
    args = read(*arguments)
    vars(args).update(stock)
    with pytest.raises(ConfigurationError) as caught:
        check_dds(args)
    return str(caught.value)


def training_settings(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Namespace:
    """What fairseq-train's own parser makes of a command line with the task."""
    given = [
        "DATA",
        "--user-dir",
        str(cli.PACKAGE),
        "--task",
        "translation_multi_dds",
        "--arch",
        "transformer",
        *arguments,
    ]
    monkeypatch.setattr("sys.argv", ["fairseq-train", *given])
    args: Namespace = options.parse_args_and_arch(options.get_training_parser(), input_args=given)
    return args


# --- the page and the parser --------------------------------------------------------------------------


def test_the_page_knows_every_flag() -> None:
    assert set(THEIRS.split()) <= ROWS.keys()
    assert OWN.keys() <= ROWS.keys()
    assert not ROWS.keys() & set(UNCHANGED)


def test_the_page_says_what_is_refused_and_why() -> None:
    assert {flag for flag, (state, _, _) in ROWS.items() if state.startswith("refused")} == {r.name for r in REFUSED}
    for refused in REFUSED:
        state, _, text = ROWS[refused.name]
        assert text.replace("`", "") == refused.reason, refused.name
        assert state == ("refused" if refused.neutral is None else f"refused [{refused.neutral}]")


def test_the_page_says_what_has_no_effect() -> None:
    assert {flag for flag, (state, _, _) in ROWS.items() if state == "no effect"} == WITHOUT_EFFECT.keys()
    for flag, reason in WITHOUT_EFFECT.items():
        assert ROWS[flag][2].replace("`", "").startswith(reason), flag


def test_the_page_has_the_defaults() -> None:
    others = {refused.name for refused in REFUSED} | WITHOUT_EFFECT.keys()
    assert {flag for flag, (state, _, _) in ROWS.items() if state == "here"} == OWN.keys() - others
    for flag in OWN.keys() - others:
        default = OWN[flag].default
        told = "" if default is None else "off" if default is False else f"`{default}`"
        assert ROWS[flag][1] == told, flag


def test_fairseq_train_has_every_flag_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = ("--lr-scheduler", "inverse_sqrt", "--optimizer", "adam", "--criterion", "label_smoothed_cross_entropy")
    asked: set[str] = set()
    parse = ArgumentParser.parse_known_args

    def watched(self: ArgumentParser, *arguments: object, **others: object) -> object:
        asked.update(option for action in self._actions for option in action.option_strings)
        return parse(self, *arguments, **others)  # type: ignore[call-overload]

    monkeypatch.setattr(ArgumentParser, "parse_known_args", watched)
    training_settings(monkeypatch, *schedule)
    assert ROWS.keys() | set(UNCHANGED) <= asked


def test_a_schedule_of_stock_keeps_its_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--lang-pairs", "de-en", "--lr-shrink", "0.25", "--lr-threshold", "0.5")
    plateau = training_settings(monkeypatch, *flags, "--lr-scheduler", "reduce_lr_on_plateau")
    configured = convert_namespace_to_omegaconf(plateau).lr_scheduler
    assert (configured.lr_shrink, configured.lr_threshold) == (0.25, 0.5)
    square_root = training_settings(monkeypatch, *flags, "--lr-scheduler", "inverse_sqrt")
    assert convert_namespace_to_omegaconf(square_root).lr_scheduler._name == "inverse_sqrt"


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
def test_refused_with_its_reason(refused: Refused) -> None:
    sentence = refusal(*([refused.name] if refused.switch else [refused.name, "0.7"]))
    assert sentence == f"{refused.name} is not supported: {refused.reason}"


@pytest.mark.parametrize("refused", [r for r in REFUSED if r.neutral is not None], ids=lambda refused: refused.name)
def test_what_does_nothing_is_accepted(refused: Refused) -> None:
    assert refused.neutral is not None
    spellings = [refused.neutral]
    if re.fullmatch(r"-?[\d.]+", refused.neutral):
        spellings.append(f"{float(refused.neutral):.3f}")
    for value in spellings:
        check_dds(read(f"{refused.name}={value}"))
        args = read()
        setattr(args, refused.attribute, float(value) if value != "target" else value)  # as YAML has it
        check_dds(args)


def test_nothing_given_is_nothing_refused() -> None:
    check_dds(read())
    assert not samples_languages(read())
    for switched_on in ("--datasize-t=5", "--dataset-type=multi", "--data-filter-percentage=.1"):
        assert samples_languages(read(switched_on))


K = ("--update-language-sampling", 1000)
BASE = (*K, "--data-actor", "base")
SENTENCES = ("--data-actor", "ave_emb", "--data-actor-step-update")
SHARE = ("--data-filter-percentage", 0.2)


def test_the_published_settings_are_accepted() -> None:
    for more in ((), ("--data-actor-multilin",), ("--scale-reward", "--baseline")):
        check_dds(read(*BASE, "--data-actor-lr", 0.0001, "--data-actor-optim-step", 200, "--datasize-t", 1, *more))
    check_dds(read(*SENTENCES, *SHARE, "--select-by-dds-epoch", 2))
    check_dds(read(*BASE, *SHARE, "--select-by-dds-epoch", 1, "--random-data-filter-by-len"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--dataset-type", "tcs"), "--dataset-type tcs is not supported"),
        (("--dataset-type", "round_robin"), "--dataset-type round_robin is not supported"),
        (("--feature-type", "valid_loss"), "--feature-type valid_loss is not supported"),
        (("--update-language-sampling", 0), "--update-language-sampling 0 is no number of updates"),
        (("--update-language-sampling", -2), "--update-language-sampling -2 is no number of updates"),
        ((*BASE, "--data-actor-optim-step", 0), "--data-actor-optim-step is 0: pass 1 or more"),
        ((*BASE, "--loss-steps", 0), "--loss-steps is 0: pass 1 or more"),
        ((*BASE, "--data-actor-embed-dim", 0), "--data-actor-embed-dim is 0: pass 1 or more"),
        ((*BASE, "--data-actor-lr", 0), "--data-actor-lr is 0.0: pass a number above 0"),
        ((*BASE, "--data-actor-lr", "nan"), "--data-actor-lr is nan: pass a number above 0"),
        (("--datasize-t", 0), "--datasize-t is 0.0: pass a temperature above 0"),
        (("--datasize-t", -1), "--datasize-t is -1.0: pass a temperature above 0"),
        ((*BASE, "--lan-dists", "1,2"), "--lan-dists and --pretrain-type lan_dist go together"),
        (("--pretrain-type", "lan_dist", "--lan-dists", "1,2"), "--lan-dists is where an actor of languages starts"),
        (SENTENCES, "say how many with --data-filter-percentage"),
        ((*BASE, "--lan-embed-dim", 4), "--lan-embed-dim is a setting of the actor lan, but --data-actor is base"),
        ((*BASE, "--embedding-file", "x"), "--embedding-file is a setting of the actor lan"),
        ((*BASE, "--out-score-type", "exp"), "--out-score-type is a setting of the actor ave_emb or transformer"),
        ((*SHARE, *SENTENCES, "--data-actor-model-embed", 7), "--data-actor-model-embed is 7: pass 0 or 1"),
        (("--pretrain-type", "lan_dist"), "--lan-dists and --pretrain-type lan_dist go together"),
        (K, "no --data-actor is named"),
        ((*K, *SENTENCES), "--data-actor ave_emb scores sentences"),
        (("--data-actor", "lan"), "--data-actor lan learns every K updates"),
        (("--data-actor", "transformer"), "pass --data-actor-step-update"),
        (("--data-actor-step-update",), "--data-actor is not given"),
        ((*BASE, "--data-actor-step-update"), "--data-actor is base"),
        (("--select-by-dds-epoch", 2), "say which with --data-filter-percentage"),
        (("--random-data-filter",), "say which with --data-filter-percentage"),
        ((*SHARE, "--random-data-filter"), "needs the epoch from which on"),
        ((*SHARE, *SENTENCES, "--select-by-dds-epoch", 1), "2 or more, as the actor learns before it"),
        ((*SHARE, "--select-by-dds-epoch", 2), "needs scores of sentences"),
        ((*SHARE, *BASE, "--select-by-dds-epoch", 2), "needs scores of sentences"),
        (("--data-filter-percentage", 1), "--data-filter-percentage is 1: pass a share below 1"),
        (("--data-filter-percentage", "nan"), "--data-filter-percentage is nan: pass a share below 1"),
        ((*SHARE, "--random-data-filter", "--random-data-filter-by-len"), "exclude each other"),
    ],
)
def test_contradictions(arguments: tuple[object, ...], sentence: str) -> None:
    told = refusal(*arguments)
    assert sentence in told
    assert "\n" not in told
    assert ". " not in told  # one sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sampling_method", "temperature"),
        ("sampling_weights", {"main:de-en": 1.0}),
        ("sampling_weights_from_file", "FILE"),
        ("virtual_epoch_size", 1000),
    ],
)
def test_stock_and_this_task_do_not_both_sample(name: str, value: object) -> None:
    flag = f"--{name.replace('_', '-')}"
    assert f"{flag} is stock's way of sampling" in refusal("--datasize-t", 1, **{name: value})
    args = read()
    setattr(args, name, value)
    check_dds(args)  # stock's alone


def test_sharded_parameters() -> None:
    assert "--ddp-backend fully_sharded" in refusal(*BASE, ddp_backend="fully_sharded")
    args = read("--datasize-t", 1)
    args.ddp_backend = "fully_sharded"
    check_dds(args)  # nothing is measured
