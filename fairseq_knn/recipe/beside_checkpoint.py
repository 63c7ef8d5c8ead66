"""What translation needs beside a checkpoint: tokenizer and dictionaries, by the names that stock fairseq looks for."""

from collections.abc import Mapping
from pathlib import Path

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.atomic import atomic_path


def files_beside(tokenizer: Mapping[str, Path], data: Path, languages: tuple[str, str]) -> dict[str, Path]:
    """The files by the names they get beside the checkpoints.

    Args:
        tokenizer: its files, by those names.
        data: directory of the binarised data.
        languages: source and target.
    """
    names = [f"dict.{language}.txt" for language in languages]
    return {**tokenizer, **{name: data / name for name in names}}


def check_beside(directory: Path, files: Mapping[str, Path]) -> None:
    """Refuse to go on with or evaluate a training whose pieces were others: its parameters would mean something else.

    Raises:
        ConfigurationError: a file that is there has another content.
    """
    for name, source in files.items():
        kept = directory / name
        if kept.exists() and kept.read_bytes() != source.read_bytes():
            raise ConfigurationError(
                f"{kept} and {source} differ, so the training in {directory} was of another tokenizer or other text: "
                "restore the one it had, or choose another training.save_dir"
            )


def copy_beside(directory: Path, files: Mapping[str, Path]) -> None:
    """Copy what is not there yet, atomically.

    Raises:
        UserError: the directory cannot be written.
    """
    for name, source in files.items():
        content = source.read_bytes()
        if not (directory / name).exists() or (directory / name).read_bytes() != content:
            with atomic_path(directory / name) as temporary:
                temporary.write_bytes(content)
