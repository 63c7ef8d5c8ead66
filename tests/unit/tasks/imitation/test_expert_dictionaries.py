"""Where the expert's dictionaries are, and that its target one is the student's."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.data import Dictionary

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.expert_dictionaries import (
    check_same,
    dictionary_paths,
    load_dictionary,
    target_dictionary_path,
)


def config(source: str | None = None, target: str | None = None, data: str | None = None) -> Any:
    return SimpleNamespace(expert_vocab_src=source, expert_vocab_tgt=target, expert_data=data)


def made(*words: str, pad: int = 1) -> Dictionary:
    dictionary = Dictionary()
    for word in words:
        dictionary.add_symbol(word)
    dictionary.pad_index = pad
    return dictionary


def test_files_are_named_one_by_one_or_by_their_directory(tmp_path: Path) -> None:
    assert dictionary_paths(config("s.txt", "t.txt"), (None, None)) == ("s.txt", "t.txt")
    folder = str(tmp_path)
    assert dictionary_paths(config(data=folder), ("en", "de")) == (f"{folder}/dict.en.txt", f"{folder}/dict.de.txt")
    assert dictionary_paths(config("s.txt", data=folder), (None, "de")) == ("s.txt", f"{folder}/dict.de.txt")
    assert dictionary_paths(config(data="joined.txt"), (None, None)) == ("joined.txt", "joined.txt")


def test_files_that_are_not_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--expert-vocab-src is missing"):
        dictionary_paths(config(target="t.txt"), ("en", "de"))
    with pytest.raises(ConfigurationError, match="does not say its languages"):
        dictionary_paths(config(data=str(tmp_path)), (None, None))
    with pytest.raises(ConfigurationError, match="--expert-vocab-tgt is missing"):
        target_dictionary_path(config("s.txt"))
    assert target_dictionary_path(config(data=str(tmp_path))) == str(tmp_path / "dict.txt")


@pytest.mark.parametrize("content", ["hello\n", "a 1\nb two\n", "a 1\na 1\n", None])
def test_what_is_no_dictionary(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"dict\.txt"):
        load_dictionary(str(path))


def test_dictionaries_have_to_be_the_same() -> None:
    check_same(made("a", "b"), made("a", "b"))
    with pytest.raises(ConfigurationError, match="has 6 symbols, the expert's target dictionary 7"):
        check_same(made("a", "b"), made("a", "b", "c"))
    with pytest.raises(ConfigurationError, match="symbol 5 is 'b' in the one and 'c' in the other"):
        check_same(made("a", "b"), made("a", "c"))
    with pytest.raises(ConfigurationError, match="symbol 4 is 'a' in the one and 'b' in the other"):
        check_same(made("a", "b"), made("b", "a"))
    with pytest.raises(ConfigurationError, match="pad is 1 in the student's dictionary and 0 in the expert's"):
        check_same(made("a"), made("a", pad=0))
