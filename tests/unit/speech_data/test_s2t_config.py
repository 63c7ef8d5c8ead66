"""The YAML file, as stock fairseq reads it."""

import dataclasses
import importlib
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest
import yaml

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.moses import Moses
from fairseq_knn.speech_data.s2t_config import S2TSettings, write_config
from fairseq_knn.subwords import load_subwords

CODES = "l o 9\ne r</w> 8\nlo w</w> 7\nlow er</w> 4\nlo w 3\n"


@pytest.fixture
def expert(tmp_path: Path) -> Path:
    directory = tmp_path / "expert"
    directory.mkdir()
    (directory / "bpecodes").write_text(CODES)
    for language in ("en", "de"):
        (directory / f"dict.{language}.txt").write_text("low 3\nlower 2\nlo@@ 1\n@-@ 1\n")
    return directory


@pytest.fixture
def settings(expert: Path) -> S2TSettings:
    return S2TSettings(expert / "dict.de.txt", source_dictionary=expert / "dict.en.txt", codes=expert / "bpecodes")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_stock_cuts_as_fastbpe(settings: S2TSettings, data: Path, expert: Path) -> None:
    from fairseq.data import encoders
    from fairseq.data.audio.speech_to_text_joint_dataset import S2TJointDataConfig

    write_config(data, "config.yaml", settings)
    config = S2TJointDataConfig(data / "config.yaml")
    text = "low lower lowest"
    for tokenizer in (config.bpe_tokenizer, config.src_bpe_tokenizer):
        assert encoders.build_bpe(Namespace(**tokenizer)).encode(text) == load_subwords(expert / "bpecodes").encode(
            text
        )
    assert encoders.build_tokenizer(Namespace(**config.pre_tokenizer)) is None
    assert (data / config.vocab_filename).read_bytes() == (expert / "dict.de.txt").read_bytes()
    assert (data / config.src_vocab_filename).read_bytes() == (expert / "dict.en.txt").read_bytes()


def test_each_side_is_tokenised_in_its_language(settings: S2TSettings, data: Path) -> None:
    from fairseq.data import encoders
    from fairseq.data.audio.speech_to_text_joint_dataset import S2TJointDataConfig

    write_config(data, "config.yaml", dataclasses.replace(settings, languages=("en", "de")))
    config = S2TJointDataConfig(data / "config.yaml")
    for tokenizer, language in ((config.src_pre_tokenizer, "en"), (config.pre_tokenizer, "de")):
        text = "It's low-lower, isn't it?"
        assert encoders.build_tokenizer(Namespace(**tokenizer)).encode(text) == Moses(language, normalize=False)(text)


def test_stock_loads_manifests_with_it(settings: S2TSettings, data: Path, write_tsv: Callable[..., Path]) -> None:
    from fairseq.data import Dictionary
    from fairseq.data.audio.speech_to_text_dataset import S2TDataConfig, SpeechToTextDatasetCreator

    np.save(data / "a.npy", np.random.default_rng(0).normal(size=(7, 80)).astype(np.float32))
    manifest = write_tsv("train.tsv", "id audio n_frames tgt_text", ["a", "a.npy", "7", "lo@@ low"])
    manifest.rename(data / "train.tsv")
    np.savez(data / "gcmvn.npz", mean=np.zeros(80), std=np.ones(80))
    for cmvn, npz in (("global", data / "gcmvn.npz"), ("utterance", None)):
        chosen = dataclasses.replace(settings, codes=None, cmvn=cmvn, global_cmvn=npz, audio_root=str(data))
        write_config(data, "config.yaml", chosen)
        config = S2TDataConfig(data / "config.yaml")
        dictionary = Dictionary.load(str(data / config.vocab_filename))
        dataset = SpeechToTextDatasetCreator.from_tsv(str(data), config, "train", dictionary, None, None, True, 1, 1)
        transforms = [type(transform).__name__ for transform in dataset.feature_transforms.transforms]
        assert transforms == [{"global": "GlobalCMVN", "utterance": "UtteranceCMVN"}[cmvn], "SpecAugmentTransform"]
        assert dataset.feature_transforms.transforms[1].freq_mask_f == 27
        item = dataset[0]
        assert item.source.shape == (7, 80)
        assert dictionary.string(item.target) == "lo@@ low"


@pytest.fixture
def prep_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """What stock's prep scripts share, without the pandas that they read manifests with."""
    monkeypatch.setitem(sys.modules, "pandas", MagicMock())
    name = "fairseq.examples.speech_to_text.data_utils"
    yield importlib.import_module(name)
    del sys.modules[name]


@pytest.mark.parametrize("policy", ["lb", "ld", "sm", "ss"])
def test_specaugment_is_that_of_the_prep_scripts(
    policy: str, settings: S2TSettings, data: Path, prep_scripts: ModuleType
) -> None:
    write_config(data, "ours.yaml", dataclasses.replace(settings, specaugment=policy))
    prep_scripts.gen_config_yaml(data, vocab_name="dict.de.txt", yaml_filename="stock.yaml", specaugment_policy=policy)
    ours, stock = (yaml.safe_load((data / name).read_text()) for name in ("ours.yaml", "stock.yaml"))
    assert ours["transforms"] == stock["transforms"]
    # stock misspells what its reader calls time_warp_W; both are 0
    stock["specaugment"]["time_warp_W"] = stock["specaugment"].pop("time_wrap_W")
    assert ours["specaugment"] == stock["specaugment"]
    assert (ours["input_feat_per_channel"], ours["input_channels"]) == (80, 1)


def test_without_augmentation_and_codes(settings: S2TSettings, data: Path) -> None:
    chosen = dataclasses.replace(settings, codes=None, source_dictionary=None, specaugment="none", cmvn="none")
    write_config(data, "config.yaml", chosen)
    assert yaml.safe_load((data / "config.yaml").read_text()) == {
        "vocab_filename": "dict.de.txt",
        "input_feat_per_channel": 80,
        "input_channels": 1,
        "transforms": {"*": []},
    }


def test_sentencepiece_models_are_copied(settings: S2TSettings, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "spm.model"
    model.write_bytes(b"\n\x10no real model")
    config = write_config(data, "config.yaml", dataclasses.replace(settings, codes=model))
    assert config["bpe_tokenizer"] == {"bpe": "sentencepiece", "sentencepiece_model": str(data / "spm.model")}
    assert config["src_bpe_tokenizer"] == config["bpe_tokenizer"]
    assert (data / "spm.model").read_bytes() == model.read_bytes()


def test_the_same_again_is_the_same_and_other_files_stay(settings: S2TSettings, data: Path) -> None:
    write_config(data, "config.yaml", settings)
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    write_config(data, "config.yaml", settings)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    (data / "dict.de.txt").write_text("other 1\n")
    with pytest.raises(ConfigurationError, match=r"dict.de.txt is another file than"):
        write_config(data, "config.yaml", settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cmvn": "global"}, "is missing"),
        ({"global_cmvn": Path("gcmvn.npz")}, "is given"),
        ({"cmvn": "global", "global_cmvn": Path("none.npz")}, "is no file"),
        ({"features": 0}, "--input-feat-per-channel is 0"),
        ({"channels": 0}, "--input-channels is 0"),
        ({"target_dictionary": Path("none.txt")}, "cannot be read"),
    ],
)
def test_settings_that_do_not_go_together(
    change: dict[str, object], said: str, settings: S2TSettings, data: Path
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        write_config(data, "config.yaml", dataclasses.replace(settings, **change))
    assert list(data.iterdir()) == []
