"""The directory a corpus is written to: ``{train,valid,test}.TEXT``, attachments and, last, ``corpus.json``.

Files are staged in a hidden directory inside it. As long as that exists, files of these names are leftovers
of an interrupted run; without it and without corpus.json they are somebody else's.
"""

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_knn.corpora.form import SPLITS, Form, Unit, language_of
from fairseq_knn.corpora.wheel import sha256_of
from fairseq_knn.errors import UserError
from fairseq_knn.storage.atomic import (
    directory_lock,
    explain_os_errors,
    make_directory,
    publish,
    read_json,
    remove_partials,
    write_json,
)

MANIFEST = "corpus.json"
_STAGING = ".corpus.part"


@contextlib.contextmanager
def reserved(directory: Path, files: Sequence[str]) -> Iterator[None]:
    """Make *directory* if need be and keep it to ourselves; after an error, leave it as it was.

    Args:
        directory: of a corpus.
        files: see :class:`Form`.

    Raises:
        UserError: it cannot be made.
    """
    existed = directory.exists()
    make_directory(directory)
    with explain_os_errors(directory), directory_lock(directory):
        try:
            yield
        except BaseException:
            # With only some of the files published, the mark of the interrupted run has to stay.
            if not any((directory / name).exists() for name in files):
                shutil.rmtree(directory / _STAGING, ignore_errors=True)
            if not existed:
                with contextlib.suppress(OSError):
                    directory.rmdir()
            raise


def finished(directory: Path, identity: Mapping[str, Any], form: Form[Any]) -> dict[str, Any] | None:
    """The manifest of the finished corpus in *directory*, or None if there is none yet.

    Args:
        directory: reserved by the caller.
        identity: what the manifest has to say about where the corpus comes from.
        form: of the corpus.

    Raises:
        UserError: the directory holds something else, or files that have been changed.
    """
    if not (directory / MANIFEST).exists():
        _refuse_strangers(directory, form.files)
        return None
    manifest = load_manifest(directory)
    different = [
        f"its {field} is {manifest.get(field)!r}, asked for is {value!r}"
        for field, value in identity.items()
        if manifest.get(field) != value
    ]
    if different:
        raise UserError(
            f"{directory} holds another corpus ({different[0]}): name another directory, or remove this one"
        )
    absent = set(form.attachments) - set(manifest["files"])
    for name in (name for name in form.files if name not in absent):
        path, described = directory / name, manifest["files"].get(name, {})
        if not path.exists() or sha256_of(path) != described.get("sha256"):
            raise UserError(
                f"{path} is not as {MANIFEST} describes it: remove {directory} and run the same "
                "command again, or name another directory"
            )
    shutil.rmtree(directory / _STAGING, ignore_errors=True)
    return manifest


def begin(directory: Path) -> None:
    """Mark *directory* as being written, which also tells early if it can be.

    Raises:
        UserError: it cannot be written.
    """
    staging = directory / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    with explain_os_errors(directory):
        staging.mkdir()


def write(
    directory: Path,
    identity: Mapping[str, Any],
    form: Form[Unit],
    parts: Mapping[str, Sequence[Unit]],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Write a corpus into a directory that was begun.

    Args:
        directory: of the corpus.
        identity: where it comes from, for the manifest.
        form: what it consists of.
        parts: its units, by split.
        report: called with lines of progress.

    Returns:
        The manifest: *identity*, sizes, words, and the checksum of every file.

    Raises:
        UserError: the disk is full or the directory cannot be written.
    """
    staging = directory / _STAGING
    files = {}
    with explain_os_errors(directory):
        for split in SPLITS:
            for text in form.texts:
                lines = form.lines(parts[split], text)
                content = "".join(f"{line}\n" for line in lines).encode()
                (staging / f"{split}.{text}").write_bytes(content)
                files[f"{split}.{text}"] = {
                    **form.sizes(parts[split], text),
                    "tokens": sum(len(line.split()) for line in lines),
                    "sha256": sha256_of(staging / f"{split}.{text}"),
                }
        for name, sizes in form.attach(parts, staging, report).items():
            files[name] = {**sizes, "sha256": sha256_of(staging / name)}
        manifest = {**identity, "files": files}
        remove_partials(directory / MANIFEST)
        for name in files:
            publish(staging / name, directory / name)
        write_json(directory / MANIFEST, manifest)
        staging.rmdir()
    return manifest


def load_manifest(directory: Path) -> dict[str, Any]:
    """Read ``corpus.json``.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    path = directory / MANIFEST
    try:
        manifest = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{directory} holds no finished corpus (there is no {MANIFEST}): run fairseq-knn corpus NAME {directory}"
        ) from error
    described = manifest if isinstance(manifest, dict) else {}
    files, languages = described.get("files"), described.get("languages")
    if not (isinstance(files, dict) and isinstance(languages, list) and _complete(files, languages)):
        raise UserError(f"{path} does not describe a corpus of fairseq-knn: name another directory")
    return described


def names_of(manifest: Mapping[str, Any], split: str, language: str) -> list[str]:
    """The files of a corpus that hold a split in a language."""
    return [name for name in manifest["files"] if name.startswith(f"{split}.") and language_of(name) == language]


def _complete(files: Iterable[str], languages: Iterable[str]) -> bool:
    """Whether there is a file of every language for every split."""
    found = {(name.partition(".")[0], language_of(name)) for name in files}
    return found >= set(itertools.product(SPLITS, languages))


def _refuse_strangers(directory: Path, files: Sequence[str]) -> None:
    with explain_os_errors(directory):
        names = {path.name for path in directory.iterdir()}
    ours = {_STAGING, *(files if _STAGING in names else ())}
    strangers = sorted(name for name in names - ours if not name.startswith(f".{MANIFEST}."))
    if strangers:
        raise UserError(
            f"{directory} is not empty and holds no corpus of fairseq-knn (but {strangers[0]}): name "
            "another directory, or empty this one"
        )
