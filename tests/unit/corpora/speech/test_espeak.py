"""The voice says the same again, at the pace it is told."""

import subprocess
import sys

import pytest

from fairseq_knn.corpora.speech.espeak import Voice
from fairseq_knn.errors import UserError

TEXTS = ("Zapnout světlo", "Co je to?", "Žluťoučký kůň")


# A process of its own: what was read before would be heard in what comes after.
READ = f"""
import hashlib
from fairseq_knn.corpora.speech.espeak import Voice
voice = Voice("cs", 290)
for text in {TEXTS!r}:
    print(hashlib.sha256(voice.say(text).tobytes()).hexdigest())
"""


def test_the_same_in_the_same_order() -> None:
    processes = [subprocess.Popen([sys.executable, "-c", READ], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate()[0].split() for process in processes)
    assert first == second
    assert len(set(first)) == len(TEXTS)


def seconds(words_per_minute: int) -> float:
    voice = Voice("cs", words_per_minute)
    try:
        return sum(len(voice.say(text)) for text in TEXTS) / voice.rate
    finally:
        voice.close()


def test_pace() -> None:
    assert seconds(120) > 1.5 * seconds(290) > 1


def test_no_such_voice() -> None:
    with pytest.raises(UserError, match="no voice 'nobody'"):
        Voice("nobody", 175)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"not installed: pip install espeakng-loader"):
        Voice("cs", 175)
