import re

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.tasks.imitation.text_pairs import TextPairs, encode_side
from fairseq_knn.tasks.imitation.transcripts import EncodedTexts, encode_texts

SIZE = 23


def _dictionary(letter: str) -> Dictionary:
    dictionary = Dictionary()
    for number in range(SIZE):
        dictionary.add_symbol(f"{letter}{number}")
    return dictionary


STUDENT, EXPERT, TARGET = map(_dictionary, "seᛏ")


def _encoded(dictionary: Dictionary, letter: str, lengths: list[int]) -> EncodedTexts:
    """Sentence i is so many times the symbol of number i."""
    texts = [" ".join([f"{letter}{number}"] * length) for number, length in enumerate(lengths)]
    return encode_texts(texts, dictionary, str, "sentences").sentences


def _pairs(expert: bool = True, seed: int = 0) -> TextPairs:
    chance = np.random.default_rng(seed)
    sides = [chance.integers(1, 9, SIZE).tolist() for _ in range(3)]
    texts = [
        encode_side(
            [" ".join([f"{letter}{n}"] * length) for n, length in enumerate(lengths)], dictionary, str, "x", "dict.txt"
        )
        for letter, dictionary, lengths in (("s", STUDENT, sides[0]), ("ᛏ", TARGET, sides[1]))
    ]
    read = _encoded(EXPERT, "e", sides[2]) if expert else None
    return TextPairs(texts[0], STUDENT, texts[1], TARGET, read, left_pad_source=True)


def test_order_within_batches_mixes_up_no_sentences() -> None:
    pairs = _pairs()
    chance = np.random.default_rng(1)
    for _ in range(20):
        numbers = chance.permutation(SIZE)[:7].tolist()
        batch = pairs.collater([pairs[number] for number in numbers])
        assert sorted(batch["sentence"].tolist()) == sorted(numbers)
        for row, number in enumerate(batch["sentence"].tolist()):
            rows = {
                "s": (STUDENT, batch["net_input"]["src_tokens"][row]),
                "e": (EXPERT, batch["expert_input"]["src_tokens"][row]),
                "ᛏ": (TARGET, batch["target"][row]),
            }
            for letter, (dictionary, tokens) in rows.items():
                symbols = set(tokens[tokens.ne(dictionary.pad()) & tokens.ne(dictionary.eos())].tolist())
                assert symbols == {dictionary.index(f"{letter}{number}")}
            length = int(batch["expert_input"]["src_lengths"][row])
            expected = batch["expert_input"]["src_tokens"][row].ne(EXPERT.pad()).sum()
            assert length == expected
            assert batch["expert_input"]["src_tokens"][row, length - 1] == EXPERT.eos()  # padded on the right


def test_net_input_is_stocks() -> None:
    batch = _pairs(expert=False).collater([_pairs()[3]])
    assert set(batch["net_input"]) == {"src_tokens", "src_lengths", "prev_output_tokens"}
    assert "expert_input" not in batch
    assert _pairs().collater([]) == {}


def test_positions_are_those_of_the_targets() -> None:
    pairs = _pairs()
    assert list(pairs.positions()) == [len(pairs[number]["target"]) for number in range(SIZE)]
    batch = pairs.collater([pairs[4]])
    assert pairs.positions()[4] == batch["net_input"]["prev_output_tokens"].size(1)


def test_digest_tells_what_beliefs_depend_on() -> None:
    assert _pairs().digest() == _pairs().digest()
    assert len({_pairs().digest(), _pairs(seed=1).digest(), _pairs(expert=False).digest()}) == 3


def test_blank_source_is_its_end() -> None:
    side = encode_side(["s1", " "], STUDENT, str, "sources", "dict.txt")
    assert torch.equal(side[1], torch.tensor([STUDENT.eos()]))
    assert side.sizes == [2, 1]


def test_dictionary_of_something_else_is_refused() -> None:
    encode_side(["s1 s2 nothing"], STUDENT, str, "sources of 'train'", "dict.txt")
    complaint = "66.7% of the 3 symbols of the sources of 'train' are not in dict.txt (most often 'e1', 'e2')"
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        encode_side(["e1 e2 s3"], STUDENT, str, "sources of 'train'", "dict.txt")
