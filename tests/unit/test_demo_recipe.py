"""The demonstration of recipes: what it reads in the output of programs, and its table."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("demo_recipe")


def test_both_ways_to_translate_have_to_agree(demo: ModuleType) -> None:
    translations = ["Redémarrez le serveur.", "Indisponible.", "Mot de passe"]
    typed = "".join(f"S-{n}\ta b\nH-{n}\t-0.5\tc d\nD-{n}\t-0.5\t{text}\n" for n, text in enumerate(translations))
    loaded = "".join(f"HUB\t{text}\n" for text in translations)
    assert demo.agreed(typed, f"INFO: loading\n{loaded}") == dict(zip(demo.SENTENCES, translations, strict=True))
    for other in (loaded.replace("passe", "passé"), loaded.partition("\n")[2]):
        with pytest.raises(demo.CommandFailed, match="fairseq-interactive translates"):
            demo.agreed(typed, other)


def test_losses(demo: ModuleType) -> None:
    lines = [
        f"[train_inner][INFO] - epoch 001: {n} / 883 loss={9 - n / 100}, nll_loss=8.5, ppl=9, num_updates={n}"
        for n in (100, 200)
    ]
    assert demo.losses("\n".join(["running fairseq-hydra-train", *lines])) == [
        "loss=8.0, nll_loss=8.5",
        "loss=7.0, nll_loss=8.5",
    ]


def test_text_as_it_is(demo: ModuleType) -> None:
    lines = ["the cat sat on the mat", "a small house"]
    assert demo.copied(lines, lines) == pytest.approx((100, 100))
    assert max(demo.copied(lines, ["zzz zz", "yyyy"])) < 5


def test_table(demo: ModuleType) -> None:
    content = {
        **{"pairs": 28193, "updates": 4000, "sentences": 1000, "training_processor_seconds": 612},
        "rows": [demo.row("recipe", 31.234, 55.5), demo.row("source text as it is", 5.01, 20)],
        **{"signature": "BLEU: x; chrF: y", "translations": {"Restart.": "Redémarrez."}},
    }
    table = demo.markdown(content)
    assert "| recipe | 31.2 | 55.5 |" in table
    assert "| Restart. | Redémarrez. |" in table
    assert "after 4,000 updates on 28,193 others, 612 seconds of one processor" in table
