"""The flags and names of imitation: what the documentation says of each is what happens."""

import re
from argparse import ArgumentParser, Namespace
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq import options
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationConfig

from fairseq_knn import plugin
from fairseq_knn.criterions.imitation_config import ImitationConfig, check_imitation, schedule_of
from fairseq_knn.criterions.imitation_presets import REPLACED
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.schedule import BetaSchedule
from fairseq_knn.tasks.translation_imitkd import TranslationImitkdConfig
from tests import cli

DOCS = Path(__file__).parents[3] / "docs"
PAGES = (DOCS / "imitkd.md").read_text() + (DOCS / "from-imitkd-ast.md").read_text()
plugin.register()

# The training command of the README of github.com/HubReb/imitkd_ast.
THEIRS = """
    COVOST/en --config-yaml config_st_en_de.yaml --train-subset train_processed --valid-subset dev_processed
    --num-workers 8 --max-tokens 50000 --max-update 30000 --task speech_to_text --criterion imit_kd --report-accuracy
    --arch s2t_transformer_s --optimizer adam --lr 0.002 --lr-scheduler inverse_sqrt --seed 1 --clip-norm 10.0
    --expert EXPERT --expert-vocab-tgt TARGET --expert-vocab-src SOURCE --path TARGET --save-dir CHECKPOINTS
    --bpe-codes CODES --warmup-updates 10000 --clip-norm 10.0 --seed 1 --update-freq 8 --patience 10
    --load-pretrained-encoder-from ASR --encoder-freezing-updates 1000
"""
# Flags of the original's criterions that are not in it.
OTHERS = "--beta --eval-bleu --eval-bleu-detok --asr-model --path-asr-model --data-mix-rate --ignore-prefix-size"


def section(name: str) -> str:
    """The text below a heading of either page, to the next one."""
    _, text = PAGES.split(f"\n## {name}\n")
    return text.split("\n## ")[0]


def rows(name: str) -> list[list[str]]:
    """The cells of the tables of a section, without their headings."""
    cells = [[cell.strip() for cell in row[1:-1].split("|")] for row in re.findall(r"^\|.*\|$", section(name), re.M)]
    return cells[2:]


def own_flags() -> dict[str, Any]:
    """The fields of imitation that are flags of their own."""
    return {
        f"--{entry.name.replace('_', '-')}": entry
        for entry in fields(ImitationConfig)
        if "help" in entry.metadata and not entry.name.startswith("_")
    }


def in_words(default: Any) -> str:
    """A default as the page writes it."""
    return "" if default is None else "off" if default is False else f"`{getattr(default, 'value', default)}`"


def training_settings(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Namespace:
    """What fairseq-train's own parser makes of a command line."""
    given = ["--user-dir", str(cli.PACKAGE), *arguments]
    monkeypatch.setattr("sys.argv", ["fairseq-train", *given])
    args: Namespace = options.parse_args_and_arch(options.get_training_parser(), input_args=given)
    return args


# --- flags --------------------------------------------------------------------------------------------


def test_the_page_has_every_flag_with_its_default() -> None:
    documented = {flag.strip("`"): (default, text) for flag, default, text in rows("All flags")}
    own = own_flags()
    assert documented.keys() == own.keys()
    for flag, entry in own.items():
        assert entry.default is not MISSING
        default, text = documented[flag]
        assert default == in_words(entry.default), flag
        assert text, flag
        if alias := entry.metadata.get("argparse_alias"):
            assert f"also `{alias}`" in text


def test_the_page_has_the_flags_of_the_cascade() -> None:
    documented = rows("The translation model of a cascade")
    stock = {entry.name for entry in fields(TranslationConfig)}
    inherited = {"save_dir", "num_workers", "cpu"}
    own = {
        f"--{entry.name.replace('_', '-')}": entry
        for entry in fields(TranslationImitkdConfig)
        if entry.name not in stock | inherited
    }
    assert {flag.strip("`") for flag, _, _ in documented} == own.keys()
    for flag, default, text in documented:
        entry = own[flag.strip("`")]
        assert default == in_words(entry.default), flag
        if alias := entry.metadata.get("argparse_alias"):
            assert f"also `{alias}`" in text


def test_the_page_has_defaults_that_flags_do_not_show() -> None:
    told = {flag.strip("`"): text for flag, _, text in rows("All flags")}
    assert f": {BetaSchedule('exponential', base=200.0).base:g}" in told["--beta-base"]
    assert BetaSchedule("exponential").at(1.0) == BetaSchedule("exponential", base=200.0).at(1.0)
    assert told["--beta-final"].endswith(f": {BetaSchedule('linear').at(1.0):g}")


def test_their_command_works_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    command = THEIRS.replace("--task speech_to_text", "--task speech_to_text_imitkd").split()
    args = training_settings(monkeypatch, *command)
    assert (args.expert, args.expert_vocab_src, args.expert_vocab_tgt) == ("EXPERT", "SOURCE", "TARGET")
    assert (args.expert_data, args.bpe_codes, args.report_accuracy) == ("TARGET", "CODES", True)
    check_imitation(args)
    assert schedule_of(args).at(0.5) == pytest.approx(200**-0.5)


def test_the_page_explains_every_flag_of_theirs() -> None:
    their_flags = set(re.findall(r"--[a-z-]+", THEIRS + OTHERS))
    explained = set(re.findall(r"`(--[a-z-]+)", section("From the authors' command line to this one")))
    assert their_flags <= explained | own_flags().keys()


def test_decoding_has_none_of_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["DATA", "--user-dir", str(cli.PACKAGE), "--task", "speech_to_text_imitkd", "--path", "STUDENT"]
    monkeypatch.setattr("sys.argv", ["fairseq-generate", *given])
    parser = options.get_generation_parser()
    asked: set[str] = set()
    parse = ArgumentParser.parse_known_args

    def watched(self: ArgumentParser, *arguments: object, **others: object) -> object:
        asked.update(option for action in self._actions for option in action.option_strings)
        return parse(self, *arguments, **others)  # type: ignore[call-overload]

    monkeypatch.setattr(ArgumentParser, "parse_known_args", watched)
    args = options.parse_args_and_arch(parser, input_args=given)
    assert args.path == "STUDENT"
    assert not own_flags().keys() & asked


# --- names --------------------------------------------------------------------------------------------


def test_the_page_has_every_criterion_with_its_defaults() -> None:
    documented = {name.strip("`"): [cell.strip("`") for cell in cells[:3]] for name, *cells in rows("Criterions")}
    ours = {name for name, kind in CRITERION_REGISTRY.items() if kind.__module__.startswith("fairseq_knn.")}
    assert documented.keys() == ours - REPLACED.keys()
    for name, defaults in documented.items():
        config = CRITERION_DATACLASS_REGISTRY[name]()
        assert defaults == [str(config.kd_expert_output), str(config.kd_context), str(config.kd_expert_input)]
        changed = {f.name for f in fields(ImitationConfig) if getattr(config, f.name) != f.default}
        assert changed <= {"kd_expert_output", "kd_context", "kd_expert_input"}


def test_the_page_says_what_is_refused_and_what_there_is_instead() -> None:
    documented = {name.strip("`"): text.replace("`", "") for name, text in rows("Criterions that are not offered")}
    assert documented == {name: text.replace("`", "") for name, text in REPLACED.items()}


@pytest.mark.parametrize("name", REPLACED)
def test_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CRITERION_REGISTRY[name].build_criterion(CRITERION_DATACLASS_REGISTRY[name](), None)
    assert str(caught.value) == f"--criterion {name} of the original code is not offered here: {REPLACED[name]}"


@pytest.mark.parametrize("name", REPLACED)
def test_what_there_is_instead_exists(name: str) -> None:
    for criterion in re.findall(r"(?:--criterion |or )(\w+)", REPLACED[name]):
        assert criterion in CRITERION_REGISTRY
        assert criterion not in REPLACED
    assert set(re.findall(r"--kd-[a-z-]+", REPLACED[name])) <= own_flags().keys()


# --- schedules ----------------------------------------------------------------------------------------


def test_the_page_has_beta_over_the_training() -> None:
    documented = rows("Schedules")
    assert len(documented) == 5
    for name, *cells, share in documented:
        kind = re.findall(r"`(\w+)", name)[0]
        base, value = (re.findall(rf"{which} ([\d.]+)", name) for which in ("base", "value"))
        schedule = BetaSchedule(kind, *(float(found[0]) if found else None for found in (base, [], value)))
        assert [float(cell) for cell in cells] == pytest.approx(
            [schedule.at(progress / 4) for progress in range(5)], rel=2e-3
        )
        steps = 100_000
        mean = sum(1 - schedule.at((step + 0.5) / steps) for step in range(steps)) / steps
        assert float(share.removesuffix(" %")) == pytest.approx(100 * mean, abs=0.05)


def test_more_than_half_is_the_students_when_the_page_says_so() -> None:
    share = float(re.findall(r"after ([\d.]+) % of the training", section("Schedules"))[0]) / 100
    assert BetaSchedule("exponential").at(share) == pytest.approx(0.5, abs=2e-3)


def settings(**changed: Any) -> Any:
    """Of a training with the defaults of ``imitation_kd``."""
    defaults = {entry.name: entry.default for entry in fields(ImitationConfig)}
    return SimpleNamespace(**{**defaults, "max_update": 1000, "max_epoch": 0, **changed})


def accept(config: Any) -> None:
    """As a criterion does when it is built."""
    check_imitation(config)
    schedule_of(config)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"max_update": 0}, "neither of them is given"),
        ({"max_epoch": 3}, "both --max-update and --max-epoch are given"),
        ({"beta_final": 0.1}, "--beta-final is a setting of --beta-schedule linear"),
        ({"beta_schedule": "constant"}, "--beta-schedule constant has no value"),
        ({"kd_context": "reference", "beta_base": 10.0}, "but --kd-context is reference"),
        ({"kd_context": "reference", "kd_pool": 4}, "--kd-pool is about the student's translations"),
        ({"kd_context": "reference", "kd_rollout_topk": 5}, "--kd-rollout-topk is about the student's translations"),
        ({"kd_context": "reference", "kd_mixing": "loss"}, "--kd-mixing loss is about a mixture of prefixes"),
        ({"kd_context": "student", "beta_schedule": "linear"}, "--beta-schedule linear is about a mixture of prefixes"),
        ({"kd_context": "student", "kd_cache": "X"}, "--kd-cache holds what the expert says after references"),
        ({"kd_expert_output": "full", "kd_cache": "X"}, "--kd-cache holds a few tokens for every position"),
        ({"kd_topk": 0}, "--kd-topk is 0, but must be at least 1"),
        ({"kd_topk": 4}, "--kd-topk is a setting of --kd-expert-output topk, but that is argmax"),
        ({"kd_pool": 0}, "--kd-pool is 0, but must be at least 1"),
        ({"kd_rollout_topk": -1}, "--kd-rollout-topk is -1, but must be at least 0"),
        ({"ignore_prefix_size": -1}, "--ignore-prefix-size is -1, but must be at least 0"),
        ({"kd_max_oov": 1.5}, "--kd-max-oov is 1.5, but a share is between 0 and 1"),
    ],
)
def test_contradictions(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        accept(settings(**changed))
    told = str(caught.value)
    assert sentence in told
    assert "\n" not in told
    assert ". " not in told  # one sentence


def test_no_more_of_the_likeliest_than_there_are() -> None:
    config = CRITERION_DATACLASS_REGISTRY["imit_kd"]()
    config.kd_expert_output, config.kd_topk, config.max_update, config.max_epoch = "topk", 100, 1000, 0
    task = SimpleNamespace(target_dictionary=Dictionary(), expert_of=None)
    with pytest.raises(ConfigurationError, match="--kd-topk is 100, but the dictionary has 4 symbols"):
        CRITERION_REGISTRY["imit_kd"](config, task)


@pytest.mark.parametrize(
    "changed",
    [
        {"kd_context": "reference", "max_update": 0},
        {"kd_context": "student", "max_update": 0},
        {"beta_schedule": "constant", "beta_value": 0.0, "max_update": 0},
        {"max_update": 0, "max_epoch": 5},
    ],
)
def test_a_horizon_is_asked_for_where_it_matters(changed: dict[str, Any]) -> None:
    accept(settings(**changed))
