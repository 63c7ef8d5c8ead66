"""The toy world of speech as fairseq's recipe leaves a corpus, and an expert beside it that knows nothing yet."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fairseq.data import Dictionary

from tests import imitation, speech, toy

SIZES = MappingProxyType({"train": 30, "dev": 6, "tst-COMMON": 7})
LEFT_OUT = 4  # row of the training set that has no transcript
LANGUAGES = {"en": "s", "de": "t"}  # first letters of their words

# Settings for fairseq-hydra-train: a small model on the CPU, trained for a moment.
TINY = (
    *("common.cpu=true", "dataset.num_workers=0", "dataset.max_tokens=1000", "optimization.update_freq=[1]"),
    *("+model.encoder_layers=1", "+model.decoder_layers=1", "+model.conv_channels=32"),
    *(f"+model.{side}_embed_dim=32" for side in ("encoder", "decoder")),
    *(f"+model.{side}_ffn_embed_dim=64" for side in ("encoder", "decoder")),
    *(f"+model.{side}_attention_heads=2" for side in ("encoder", "decoder")),
)


def write_corpus(folder: Path, sizes: Mapping[str, int] = SIZES) -> speech.World:
    """Write manifests of translations (``_st``) and of transcripts (``_asr``), and a configuration for the second."""
    world = speech.write(folder, sizes)
    for split, utterances in world.utterances.items():
        for kind, text in (("st", "target"), ("asr", "source")):
            chosen = [u for n, u in enumerate(utterances) if (split, kind, n) != ("train", "asr", LEFT_OUT)]
            rows = [
                (u.name, folder / "features" / f"{u.name}.npy", len(u.features), getattr(u, text), "speaker")
                for u in chosen
            ]
            lines = ["\t".join(map(str, row)) for row in (speech.COLUMNS[:5], *rows)]
            (folder / f"{split}_{kind}.tsv").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"{split}.tsv").unlink()
    (folder / "config_asr.yaml").write_text("vocab_filename: dict.src.txt\ninput_feat_per_channel: 80\n")
    return world


def pieces(text: str) -> str:
    """Words as the expert knows them: letter by letter."""
    return " ".join(" ".join([*(f"{letter}@@" for letter in word[:-1]), word[-1]]) for word in text.split())


def write_expert(folder: Path) -> Path:
    """Write dictionaries of pieces, codes of fastBPE and a model; its checkpoint."""
    folder.mkdir()
    (folder / "bpecodes").write_text("x y</w> 5\n")
    sides = []
    for language, letter in LANGUAGES.items():
        dictionary = Dictionary()
        for symbol in (letter, *"0123456789"):
            dictionary.add_symbol(symbol)
            dictionary.add_symbol(f"{symbol}@@")
        dictionary.save(str(folder / f"dict.{language}.txt"))
        words = [pieces(f"{letter}{number}") for number in range(speech.WORDS)]
        sides.append([dictionary.encode_line(word, add_if_not_exist=False).long() for word in words])
    toy.write_split(folder, "train", *sides, languages=("en", "de"))
    return toy.train(
        folder / "trained",
        *(*imitation.EXPERT, "--source-lang", "en", "--target-lang", "de", "--max-update", 1),
        data=folder,
    )
