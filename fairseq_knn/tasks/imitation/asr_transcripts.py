"""EncodedTexts that speech recognition makes of a manifest once, and that are kept."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from pathlib import Path

from tqdm import tqdm

from fairseq_knn.errors import UserError
from fairseq_knn.storage.atomic import atomic_path, explain_os_errors, make_directory, remove_partials
from fairseq_knn.storage.digest import short
from fairseq_knn.tasks.imitation.speech_recognition import Loading, SpeechRecognition, Utterances
from fairseq_knn.tasks.imitation.text_manifest import read_columns
from fairseq_knn.tasks.processes import place_and_number, wait_for

logger = logging.getLogger("fairseq_knn")

COLUMN = "asr_text"
_SECONDS_BETWEEN_FLUSHES = 60.0


def asr_transcripts(
    recognition: SpeechRecognition, utterances: Utterances, directory: Path, loading: Loading
) -> list[str]:
    """What a model hears in a manifest; what is missing of it is transcribed first, by one process, for which the
    others wait.

    Args:
        recognition: the model.
        utterances: of the manifest.
        directory: of the transcripts; a file's name tells model and audio, so that it may have those of several.
        loading: how audio is loaded.

    Raises:
        ConfigurationError: model or audio are missing or of another kind.
        UserError: the directory cannot be written, or another run is writing there.
    """
    made_of = hashlib.sha256(f"{recognition.digest} {utterances.digest()}".encode()).hexdigest()
    path = directory / f"{Path(utterances.manifest).stem}.asr-{short(made_of)}.tsv"
    if path.exists():
        logger.info(f"{utterances.manifest} was transcribed before: {path}")
    elif place_and_number()[0] == 0:
        _transcribe(recognition, utterances, path, loading)
    else:
        wait_for(path, f"the transcripts {path}")
    return read_columns(path, ["id", COLUMN])[COLUMN]


def _transcribe(recognition: SpeechRecognition, utterances: Utterances, path: Path, loading: Loading) -> None:
    make_directory(path.parent)
    remove_partials(path)
    with _Unfinished(path) as unfinished:
        done = unfinished.texts
        kept = f", {len(done):,} of which are there already" if done else ""
        logger.info(f"transcribing the {len(utterances.ids):,} utterances of {utterances.manifest}{kept}, for {path}")
        with tqdm(
            total=len(utterances.ids), initial=len(done), desc="transcripts", unit=" utterances", disable=None
        ) as bar:
            known = [number in done for number in range(len(utterances.ids))]
            for batch in recognition.transcripts(utterances, known, loading):
                bar.update(len(batch.keys() - done.keys()))
                unfinished.put(batch)
        rows = [f"{name}\t{done[number]}\n" for number, name in enumerate(utterances.ids)]
        with atomic_path(path) as temporary:
            temporary.write_text("".join([f"id\t{COLUMN}\n", *rows]), encoding="utf-8")
        unfinished.remove()


class _Unfinished:
    """A hidden file to which one process adds transcripts; it holds a lock. A later run goes on with what is there.

    Args:
        path: of the whole.

    Attributes:
        texts: transcripts by number of the utterance.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.unfinished")
        self.texts: dict[int, str] = {}
        self._flushed = time.monotonic()
        with explain_os_errors(self._path):
            self._file = self._path.open("a+b")
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another run is writing {self._path}: wait until it is finished, or name another directory with "
                "--asr-cache"
            ) from error
        except OSError:
            pass  # some network file systems have no locks

    def _read(self) -> None:
        """What was written; of an interrupted write, its last line may be a part of one."""
        self._file.seek(0)
        whole = 0
        for line in self._file:
            try:
                number, text = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            self.texts[number] = text
            whole += len(line)
        self._file.truncate(whole)

    def put(self, texts: dict[int, str]) -> None:
        """Add transcripts.

        Raises:
            UserError: the disk is full.
        """
        with explain_os_errors(self._path):
            self._file.write("".join(f"{json.dumps(entry)}\n" for entry in texts.items()).encode())
            self._file.flush()
            if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
                os.fsync(self._file.fileno())
                self._flushed = time.monotonic()
        self.texts |= texts

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def __enter__(self) -> "_Unfinished":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
