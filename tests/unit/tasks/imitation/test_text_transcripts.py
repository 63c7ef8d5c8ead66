"""EncodedTexts of a manifest are made once, whatever interrupts that, and whoever asks for them."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from fairseq_knn.errors import UserError
from fairseq_knn.tasks.imitation import asr_transcripts as module
from fairseq_knn.tasks.imitation.asr_transcripts import asr_transcripts
from fairseq_knn.tasks.imitation.speech_recognition import Loading, Utterances

HEARD = Utterances("train.tsv", list("abcde"), list("vwxyz"), [5, 4, 3, 2, 1])
LOADING = Loading(100, 0, torch.device("cpu"))
TEXTS = ["one \N{LATIN SMALL LETTER E WITH ACUTE}", "two", "", 'quote "', "five"]


class _Recognition:
    """Hears two utterances at a time; told to, it dies before a batch."""

    def __init__(self, digest: str = "0", dies_at: int = 9) -> None:
        self.digest, self.dies_at = digest, dies_at
        self.heard: list[int] = []

    def transcripts(self, utterances: Utterances, done: Sequence[bool], loading: Loading) -> Iterator[dict[int, str]]:
        for place, batch in enumerate(([0, 1], [2, 3], [4])):
            if place == self.dies_at:
                raise KeyboardInterrupt
            if not all(done[number] for number in batch):
                self.heard += batch
                yield {number: TEXTS[number] for number in batch}


def _transcripts(recognition: Any, directory: Path, utterances: Utterances = HEARD) -> list[str]:
    return asr_transcripts(recognition, utterances, directory, LOADING)


def test_is_heard_once(tmp_path: Path) -> None:
    recognition = _Recognition()
    directory = tmp_path / "not" / "there"
    assert _transcripts(recognition, directory) == TEXTS
    assert _transcripts(recognition, directory) == TEXTS
    assert recognition.heard == [0, 1, 2, 3, 4]
    (path,) = directory.iterdir()
    assert path.read_text(encoding="utf-8").splitlines()[:2] == ["id\tasr_text", f"a\t{TEXTS[0]}"]


@pytest.mark.parametrize("end", [b"", b"[4", b"[4, 5]x", b'[4, "fi'])
def test_interrupted_run_goes_on(tmp_path: Path, end: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        _transcripts(_Recognition(dies_at=2), tmp_path)
    (unfinished,) = tmp_path.iterdir()
    with unfinished.open("ab") as file:
        file.write(end)
    recognition = _Recognition()
    assert _transcripts(recognition, tmp_path) == TEXTS
    assert recognition.heard == [4]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "other", [{"audio": list("vwxy-")}, {"frames": [5, 4, 3, 2, 2]}, {"ids": list("abcd-")}, {"digest": "1"}]
)
def test_other_audio_or_model_is_heard_again(tmp_path: Path, other: dict[str, Any]) -> None:
    _transcripts(_Recognition(), tmp_path)
    digest = other.pop("digest", "0")
    recognition = _Recognition(digest)
    _transcripts(recognition, tmp_path, HEARD._replace(**other))
    assert len(recognition.heard) == 5


def test_others_wait_for_the_first_process(tmp_path: Path) -> None:
    found: list[list[str]] = []
    waiting = _Recognition()
    with (
        mock.patch.object(module, "place_and_number", side_effect=lambda: (int(threading.current_thread().name), 2)),
        mock.patch("fairseq_knn.tasks.processes._SECONDS_BETWEEN_LOOKS", 0.01),
    ):
        threads = [
            threading.Thread(target=lambda each=each: found.append(_transcripts(each, tmp_path)), name=name)
            for name, each in (("1", waiting), ("0", _Recognition()))
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
    assert found == [TEXTS, TEXTS]
    assert waiting.heard == []


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    class _Nested(_Recognition):
        def transcripts(self, *args: Any) -> Iterator[dict[int, str]]:
            with pytest.raises(UserError, match="another run is writing"):
                _transcripts(_Recognition(), tmp_path)
            return super().transcripts(*args)

    assert _transcripts(_Nested(), tmp_path) == TEXTS
