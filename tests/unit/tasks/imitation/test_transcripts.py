"""What is said, as the expert reads it."""

import pytest
import torch
from fairseq.data import Dictionary

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.transcripts import check_lengths, check_spoken, encode_references, encode_transcripts


@pytest.fixture
def dictionary() -> Dictionary:
    made = Dictionary()
    for word in ("one", "two", "three"):
        made.add_symbol(word)
    return made


def test_sentences_become_batches(dictionary: Dictionary) -> None:
    found = encode_transcripts(["one two", "three", "two  one three"], dictionary, str, "train", 0.0)
    assert len(found) == 3
    batch = found.batch([1, 2])
    assert batch["src_tokens"].dtype == torch.int64
    assert batch["src_tokens"].tolist() == [[6, 2, 1, 1], [5, 4, 6, 2]]
    assert batch["src_lengths"].tolist() == [2, 4]
    other = encode_transcripts(["one two", "three two", "one three"], dictionary, str, "train", 0.0)
    assert found.digest != other.digest  # the same symbols, parted elsewhere


def test_unknown_symbols(dictionary: Dictionary) -> None:
    texts = ["one four", "four five two three one two three one"]
    assert encode_transcripts(texts, dictionary, str, "train", 0.3)[0].tolist() == [4, 3, 2]
    with pytest.raises(ConfigurationError, match=r"30\.0% of the 10 symbols .* \(most often 'four', 'five'\)"):
        encode_transcripts(texts, dictionary, str, "train", 0.29)


def test_blank_and_missing_ones() -> None:
    check_spoken(["one", "two"], "train", ["a", "b"])
    with pytest.raises(ConfigurationError, match=r"2 of 3 transcripts of train\.tsv are blank .* ids a, c\)"):
        check_spoken([" ", "two", None], "train", ["a", "b", "c"])
    for texts in (None, ["", ""]):
        with pytest.raises(ConfigurationError, match=r"train\.tsv has no transcripts"):
            check_spoken(texts, "train", ["a", "b"])


def test_ones_that_are_too_long(dictionary: Dictionary) -> None:
    found = encode_transcripts(["one two", "three", "two one three"], dictionary, str, "train", 0.0)
    check_lengths(found, 4, "transcripts", "train", ["a", "b", "c"])
    check_lengths(found, None, "transcripts", "train", ["a", "b", "c"])
    with pytest.raises(ConfigurationError, match=r"2 transcripts of train\.tsv have more symbols than the 2 .* a, c\)"):
        check_lengths(found, 2, "transcripts", "train", ["a", "b", "c"])


def test_references_are_known_and_not_blank(dictionary: Dictionary) -> None:
    found = encode_references(["one two", "three"], dictionary, "train", ["a", "b"], 0.0)
    assert found.lengths.tolist() == [3, 2]
    assert found[0].tolist() == [dictionary.index("one"), dictionary.index("two"), dictionary.eos()]
    with pytest.raises(ConfigurationError, match=r"1 of 2 translations of train\.tsv are blank .* ids b\)"):
        encode_references(["one", " "], dictionary, "train", ["a", "b"], 0.0)
    encode_references(["one two", "four five"], dictionary, "train", ["a", "b"], 0.5)
    with pytest.raises(ConfigurationError, match=r"50\.0% of the 4 symbols in the translations .* 'four', 'five'"):
        encode_references(["one two", "four five"], dictionary, "train", ["a", "b"], 0.4)
