"""Lines of dialogue and their recordings, which are in two packages."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fairseq_knn.corpora.speech import fish_fillets

GAME = "usr/share/games/fillets-ng"
DIALOGUE = r"""
dialogId("mal-v-skvele", "font_big", "It \"works\",
and well.")
dialogStr("Funguje to  skvěle.")

dialogId("mal-m-nic", "font_small", "Not translated.")

dialogId("mal-m-ticho", "font_small", "Not recorded.")
dialogStr("Nenahráno.")
"""


def ogg(rate: int, channels: int = 1) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((rate // 10, channels)), rate, format="OGG", subtype="VORBIS")
    return file.getvalue()


def test_lines_that_are_recorded_and_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {
        "data": {
            f"{GAME}/script/city/dialogs_cs.lua": DIALOGUE.encode(),
            f"{GAME}/script/city/dialogs_de.lua": DIALOGUE.replace("Funguje", "Es geht").encode(),
            f"{GAME}/sound/city/en/mal-v-skvele.ogg": b"an effect",
        },
        "cs": {
            f"{GAME}/sound/city/cs/mal-v-skvele.ogg": ogg(44100, channels=2),
            f"{GAME}/sound/city/cs/mal-m-nic.ogg": ogg(22050),
            f"{GAME}/sound/reef/cs/mal-v-skvele.ogg": ogg(22050),
        },
    }

    def members(path: Path) -> Iterator[tuple[str, bytes]]:
        yield from packages[path.name].items()

    monkeypatch.setattr(fish_fillets, "members", members)
    (one,) = fish_fillets.recordings([Path("data"), Path("cs")])
    assert one.id == "city-mal-v-skvele"
    assert one.transcript == "Funguje to skvěle."
    assert one.translation == 'It "works", and well.'
    assert (one.rate, one.samples.shape, one.samples.dtype) == (44100, (4410,), np.int16)


def test_packages_are_pinned() -> None:
    assert [deb.filename for deb in fish_fillets.DEBS] == [
        "fillets-ng-data_1.0.1-1.1_all.deb",
        "fillets-ng-data-cs_1.0.1-1.1_all.deb",
    ]
