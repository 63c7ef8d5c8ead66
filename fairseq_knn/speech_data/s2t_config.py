"""The YAML file beside manifests: stock ``speech_to_text`` reads from it how features and texts are treated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.atomic import atomic_path
from fairseq_knn.subwords import is_sentencepiece, read_codes, read_symbols

# SpecAugment (Park et al. 2019): LibriSpeech basic and double, Switchboard mild and strong, as stock's prep scripts
# set them. Masks of frequencies (how many, width), masks of time (how many, width, largest part of the utterance).
_SPECAUGMENT = {
    "lb": (1, 27, 1, 100, 1.0),
    "ld": (2, 27, 2, 100, 1.0),
    "sm": (2, 15, 2, 70, 0.2),
    "ss": (2, 27, 2, 70, 0.2),
}
POLICIES = (*_SPECAUGMENT, "none")
CMVN = ("utterance", "global", "none")


@dataclass(frozen=True)
class S2TSettings:
    """What the file says.

    Attributes:
        target_dictionary: the model's dictionary of target symbols; becomes the student's.
        source_dictionary: the one that transcripts are encoded with, if any.
        codes: what cuts texts while they are loaded; ``None`` if the manifests hold subwords already.
        languages: (source, target), if texts are tokenised by Moses's rules while they are loaded; ``None`` if the
            manifests hold tokens already, or the model knows none.
        global_cmvn: the npz file with mean and standard deviation that ``cmvn="global"`` normalises by.
        audio_root: what paths of the manifests are relative to; empty: absolute paths.
    """

    target_dictionary: Path
    source_dictionary: Path | None = None
    codes: Path | None = None
    languages: tuple[str, str] | None = None
    specaugment: str = "lb"
    cmvn: str = "utterance"
    global_cmvn: Path | None = None
    features: int = 80
    channels: int = 1
    audio_root: str = ""


def write_config(directory: Path, name: str, settings: S2TSettings) -> dict[str, Any]:
    """Write ``DIRECTORY/NAME`` and, beside it, copies of the dictionaries and the codes.

    Codes of fastBPE are written as subword-nmt's: stock's ``subword_nmt`` reads them and cuts the same, stock's
    ``fastbpe`` needs a module in C++.

    Returns:
        The content of the file.

    Raises:
        ConfigurationError: a file cannot be read or another one has its name in the directory, or settings contradict
            each other.
    """
    from omegaconf import OmegaConf

    if (settings.cmvn == "global") != (settings.global_cmvn is not None):
        raise ConfigurationError(
            f"--cmvn is {settings.cmvn}, and a file with mean and variance is "
            f"{'missing' if settings.global_cmvn is None else 'given'}: --cmvn global and --global-cmvn go together"
        )
    if settings.global_cmvn is not None and not settings.global_cmvn.is_file():
        raise ConfigurationError(f"{settings.global_cmvn} is no file: --global-cmvn names gcmvn.npz of the prep script")
    for what, number in (("--input-feat-per-channel", settings.features), ("--input-channels", settings.channels)):
        if number < 1:
            raise ConfigurationError(f"{what} is {number}, but must be at least 1")
    copies = _Copies(directory)
    config: dict[str, Any] = {
        "vocab_filename": copies.dictionary(settings.target_dictionary),
        "input_feat_per_channel": settings.features,
        "input_channels": settings.channels,
        **_features(settings),
    }
    if settings.source_dictionary is not None:
        config["src_vocab_filename"] = copies.dictionary(settings.source_dictionary)
    if settings.languages is not None:
        source, target = settings.languages
        config |= {"src_pre_tokenizer": _moses(source), "pre_tokenizer": _moses(target)}
    if settings.codes is not None:
        cutting = copies.codes(settings.codes)
        config |= {"src_bpe_tokenizer": cutting, "bpe_tokenizer": dict(cutting)}
    if settings.audio_root:
        config["audio_root"] = settings.audio_root
    copies.write()
    path = directory / name
    with atomic_path(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
    return config


def _features(settings: S2TSettings) -> dict[str, Any]:
    always = [] if settings.cmvn == "none" else [f"{settings.cmvn}_cmvn"]
    config: dict[str, Any] = {"transforms": {"*": always}}
    if settings.specaugment != "none":
        config["transforms"]["_train"] = [*always, "specaugment"]
        frequency_masks, frequencies, time_masks, times, part = _SPECAUGMENT[settings.specaugment]
        config["specaugment"] = {
            "time_warp_W": 0,
            "freq_mask_N": frequency_masks,
            "freq_mask_F": frequencies,
            "time_mask_N": time_masks,
            "time_mask_T": times,
            "time_mask_p": part,
        }
    if settings.global_cmvn is not None:
        config["global_cmvn"] = {"stats_npz_path": str(settings.global_cmvn.resolve())}
    return config


def _moses(language: str) -> dict[str, Any]:
    # Stock tokenises with the rules of `source_lang` and joins with those of `target_lang`, whichever side the text is.
    return {
        "tokenizer": "moses",
        "source_lang": language,
        "target_lang": language,
        "moses_no_dash_splits": False,
        "moses_no_escape": False,
    }


class _Copies:
    """Files that are to stand beside the YAML file; none replaces another one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._contents: dict[Path, bytes] = {}

    def dictionary(self, path: Path) -> str:
        """Note a dictionary; returns its name in the directory."""
        read_symbols(path)
        return self._add(path, path.name, path.read_bytes()).name

    def codes(self, path: Path) -> dict[str, Any]:
        """Note codes or a model; returns what stock builds its encoder from."""
        if is_sentencepiece(path):
            model = self._add(path, path.name, path.read_bytes())
            return {"bpe": "sentencepiece", "sentencepiece_model": str(model)}
        codes = read_codes(path)
        name = f"{path.name}.subword-nmt" if codes.kind == "fastbpe" else path.name
        copy = self._add(path, name, codes.text().encode("utf-8"))
        return {"bpe": "subword_nmt", "bpe_codes": str(copy), "bpe_separator": "@@"}

    def _add(self, source: Path, name: str, content: bytes) -> Path:
        path = self._directory.resolve() / name
        there = self._contents.get(path)
        if there is None and path.is_file():
            there = path.read_bytes()
        if there not in (None, content):
            raise ConfigurationError(
                f"{path} is another file than {source}, whose copy would have this name: rename {source}"
            )
        self._contents[path] = content
        return path

    def write(self) -> None:
        for path, content in self._contents.items():
            if not path.is_file():
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
