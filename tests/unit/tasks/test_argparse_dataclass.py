"""Settings of tasks that know argparse alone: what a parser makes of flags is made of YAML, and of old checkpoints."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import gen_parser_from_dataclass, merge_with_parent
from fairseq.tasks.speech_to_text import SpeechToTextTask
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from fairseq.utils import FileContentsAction, csv_str_list, eval_str_dict
from omegaconf import OmegaConf

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.argparse_dataclass import dataclass_of, namespace_of

STOCK = [TranslationMultiSimpleEpochTask.add_args, SpeechToTextTask.add_args]
NAMES = ["translation_multi_simple_epoch", "speech_to_text"]


def add_args(parser: ArgumentParser) -> None:
    """One flag of every kind that the stock tasks have."""
    parser.add_argument("data", help="directories", action=FileContentsAction)
    parser.add_argument("-s", "--source-lang", default=None, metavar="SRC", help="source language")
    parser.add_argument("--pairs", default=None, action=FileContentsAction, help="pairs")
    parser.add_argument("--langs", default="main", type=csv_str_list, help="languages")
    parser.add_argument("--weights", default=None, type=lambda text: eval_str_dict(text, type=str), help="weights")
    parser.add_argument("--style", default="plain", type=str, choices=["plain", "fancy"], help="style")
    parser.add_argument("--langtok", default=None, choices=["src", "tgt"], help="language token")
    parser.add_argument("--left-pad", default="True", type=str, help="pad on the left")
    parser.add_argument("--size", default=1024, type=int, help="size")
    parser.add_argument("--epoch-size", default=None, type=int, help="size of an epoch")
    parser.add_argument("--heat", default=1.5, type=float, help="temperature")
    parser.add_argument("--cut", action="store_true", help="truncate")
    parser.add_argument("--bare", action="store_true", default=False)


INTERPOLATED = {"seed": "common.seed", "update_freq": "optimization.update_freq"}
Config = dataclass_of("Config", add_args, interpolated=INTERPOLATED)


def configured(kind: type[FairseqDataclass] = Config, seed: int = 7, **task: Any) -> Any:
    """Settings as fairseq hands them to ``setup_task``: merged with the dataclass, within those of all groups."""
    whole = OmegaConf.merge(OmegaConf.structured(FairseqConfig), {"common": {"seed": seed}, "task": task})
    return merge_with_parent(kind(), whole.task)


def parsed(add: Callable[[ArgumentParser], None], *arguments: str) -> dict[str, Any]:
    parser = ArgumentParser(allow_abbrev=False)
    add(parser)
    return vars(parser.parse_args(arguments))


def read(**task: Any) -> dict[str, Any]:
    settings = vars(namespace_of(configured(**task), add_args))
    return {name: value for name, value in settings.items() if name not in ("_name", *INTERPOLATED)}


@pytest.mark.parametrize("stock", STOCK, ids=NAMES)
def test_fairseq_makes_the_same_flags_again(stock: Callable[[ArgumentParser], None]) -> None:
    def flags(add: Callable[[ArgumentParser], None]) -> dict[str, tuple[Any, ...]]:
        parser = ArgumentParser(add_help=False)
        add(parser)
        return {
            action.dest: (
                sorted(action.option_strings),
                action.default,
                action.help,
                action.choices and sorted(action.choices),
                action.nargs,
                action.required,
            )
            for action in parser._actions
        }

    made = flags(lambda parser: gen_parser_from_dataclass(parser, dataclass_of("Made", stock)()))
    assert made == flags(stock)


@pytest.mark.parametrize("stock", STOCK, ids=NAMES)
def test_defaults_are_those_of_the_parser(stock: Callable[[ArgumentParser], None]) -> None:
    made = dataclass_of("Made", stock)
    assert vars(namespace_of(configured(made, data="d"), stock)) == {**parsed(stock, "d"), "_name": None}


def test_what_a_flag_refuses_is_refused() -> None:
    parser = ArgumentParser(exit_on_error=False)
    gen_parser_from_dataclass(parser, Config())
    assert parser.parse_args(["d", "-s", "de", "--langtok", "tgt", "--cut"]).source_lang == "de"
    for wrong in (["--style", "odd"], ["--langtok", "odd"], ["--size", "odd"]):
        with pytest.raises(Exception, match="odd"):
            parser.parse_args(["d", *wrong])
    assert not [action for action in parser._actions if action.dest in INTERPOLATED]


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ({"langs": "de,en"}, ["--langs", "de,en"]),
        ({"langs": ["de", "en"]}, ["--langs", "de,en"]),
        ({"pairs": ["de-en", "en-de"]}, ["--pairs", "de-en,en-de"]),
        ({"pairs": "de-en"}, ["--pairs", "de-en"]),
        ({"weights": "{'a-b': 0.5, 'n': (None, 'tgt')}"}, ["--weights", "{'a-b': .5, 'n': (None, 'tgt')}"]),
        ({"weights": {"a-b": 0.5, "n": [None, "tgt"]}}, ["--weights", "{'a-b': .5, 'n': [None, 'tgt']}"]),
        ({"style": "fancy", "langtok": "src"}, ["--style", "fancy", "--langtok", "src"]),
        ({"left_pad": False}, ["--left-pad", "False"]),
        ({"left_pad": "False"}, ["--left-pad", "False"]),
        ({"cut": True, "bare": False}, ["--cut"]),
        ({"cut": "true", "bare": "false"}, ["--cut"]),
        ({"size": "12", "epoch_size": 3, "heat": 2}, ["--size", "12", "--epoch-size", "3", "--heat", "2"]),
        ({"langs": None, "weights": None, "epoch_size": None, "langtok": None}, []),
        ({"source_lang": "-x y"}, ["--source-lang=-x y"]),
        ({"source_lang": ""}, ["--source-lang="]),
    ],
    ids=str,
)
def test_settings_are_read_as_flags_are(task: dict[str, Any], arguments: list[str]) -> None:
    assert read(data="d", **task) == parsed(add_args, "d", *arguments)


def test_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("de-en,en-de\n")
    (tmp_path / "data").write_text("one:two")
    settings = read(data=str(tmp_path / "data"), pairs=str(tmp_path / "pairs"))
    assert (settings["data"], settings["pairs"]) == ("one:two", "de-en,en-de")
    assert read(data=str(tmp_path))["data"] == str(tmp_path)


def test_settings_of_other_groups_are_there() -> None:
    settings = namespace_of(configured(data="d", seed=11), add_args)
    assert (settings.seed, settings.update_freq) == (11, [1])


def test_other_settings_are_taken_over() -> None:
    @dataclass
    class More(Config):  # type: ignore[misc,valid-type]
        knn_k: int = 8

    assert namespace_of(configured(More, data="d", knn_k=3), add_args).knn_k == 3


def test_what_stock_has_read_before_is_read_again() -> None:
    """The stock task changes its namespace, which checkpoints of the argparse time hold."""
    flags = {"data": "d", "langs": ["de", "en"], "weights": {"main": (None, "tgt")}, "pairs": ["de-en", "en-de"]}
    old = Namespace(**flags, left_pad=True, style="fancy", cut=True, size=5, task="x", seed=3)
    expected = {
        **parsed(add_args, "d", "--langs", "de,en", "--weights", "{'main': (None, 'tgt')}", "--style", "fancy"),
        **{"pairs": "de-en,en-de", "left_pad": "True", "cut": True, "size": 5},
    }
    assert vars(namespace_of(old, add_args)) == {**expected, "task": "x", "seed": 3}
    # What fairseq makes of such a namespace. Of update_freq it says nothing.
    settings = vars(namespace_of(Config.from_namespace(old), add_args))
    assert settings == {**expected, "_name": None, "seed": 3, "update_freq": [1]}
    assert old.langs == ["de", "en"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"weights": "{'main': "}, "--weights: \"{'main': \" cannot be read"),
        ({"weights": "unknown"}, "--weights: 'unknown' cannot be read: name 'unknown' is not defined"),
        ({"data": None}, "the following arguments are required: data"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"under task: in YAML") as raised:
        read(**{"data": "d", **task})
    assert message in str(raised.value)


def test_an_unknown_choice_of_an_old_checkpoint() -> None:
    with pytest.raises(ConfigurationError, match="--style: invalid choice: 'odd'"):
        namespace_of(Namespace(data="d", style="odd"), add_args)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["--no-cut"], {"dest": "cut", "action": "store_false"}),
        (["--many"], {"nargs": "+"}),
        (["--count"], {"action": "count"}),
        (["where"], {}),
        (["-a", "-b", "--both"], {}),
    ],
    ids=str,
)
def test_flags_that_fairseq_could_not_make_again(names: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no equal"):
        dataclass_of("Wrong", lambda parser: parser.add_argument(*names, **options))


def test_a_switch_that_is_on() -> None:
    """fairseq makes a flag of it that switches it off."""

    def add(parser: ArgumentParser) -> None:
        parser.add_argument("--pad", action="store_false")

    made = dataclass_of("Made", add)
    for value in (True, False):
        assert namespace_of(configured(made, pad=value), add).pad is value
    parser = ArgumentParser()
    gen_parser_from_dataclass(parser, made())
    assert (parser.parse_args([]).pad, parser.parse_args(["--pad"]).pad) == (True, False)
