"""Where a language model's entries are in their text: as kNN-LM and efficient-knnlm store them."""

import numpy as np
import pytest

from fairseq_knn.datastore.text_order import Text, find_run, locate
from fairseq_knn.errors import DatastoreError

SENTENCES = [[5, 6, 2], [7, 2], [2], [8, 9, 6, 2], [5, 2], [4, 4, 4, 2]]
DOCUMENT = [0, 0, 0, 1, 1, 1]  # of each sentence
TOKENS = np.concatenate(SENTENCES).astype(np.int32)
DOCUMENTS = np.repeat(DOCUMENT, [len(sentence) for sentence in SENTENCES])


def text(*sizes: int) -> Text:
    """The text in blocks of these sizes."""
    ends = np.cumsum(sizes)
    return Text("train", TOKENS, np.stack([ends - sizes, ends], 1).astype(np.uint16), DOCUMENTS)


FIXED = text(4, 4, 4, 4)  # --sample-break-mode none
BY_SENTENCE = text(*map(len, SENTENCES))  # --sample-break-mode eos


def test_a_run_in_the_order_of_the_text() -> None:
    order = locate(TOKENS[5:13], FIXED)
    assert order.places.tolist() == list(range(5, 13))
    assert (order.blocks.tolist(), order.lengths.tolist()) == ([1, 2, 3], [3, 4, 1])
    assert not order.sorted_by_length
    assert order.starts.tolist() == [0, 3, 7]
    assert order.documents(FIXED).tolist() == [0] + [1] * 7
    assert locate(TOKENS, BY_SENTENCE).documents(BY_SENTENCE).tolist() == DOCUMENTS.tolist()


def test_blocks_in_the_order_of_their_length() -> None:
    """The second token of a sentence follows its first; what another sentence begins with does not."""
    order = [2, 1, 4, 0, 3, 5]
    stored = np.concatenate([SENTENCES[i] for i in order])
    found = locate(stored, BY_SENTENCE)
    assert found.sorted_by_length
    assert found.blocks.tolist() == order
    assert found.lengths.tolist() == [1, 2, 2, 3, 4, 4]
    assert TOKENS[found.places].tolist() == stored.tolist()
    # Sentences 3 and 5 are in this order in the text, too, but do not follow each other.
    assert found.documents(BY_SENTENCE).tolist() == np.repeat(range(6), found.lengths).tolist()
    # The longest may be left out, or the store be full.
    assert locate(stored[:8], BY_SENTENCE).lengths.tolist() == [1, 2, 2, 3]
    assert locate(stored[1:10], BY_SENTENCE).lengths.tolist() == [2, 2, 3, 2]


def test_blocks_that_leave_tokens_out() -> None:
    """As --sample-break-mode complete_doc does with separators."""
    gaps = Text("train", TOKENS, np.array([[0, 5], [6, 10], [10, 16]]), DOCUMENTS)
    stored = np.delete(TOKENS, 5)
    found = locate(stored, gaps)
    assert found.places.tolist() == [0, 1, 2, 3, 4, *range(6, 16)]
    assert found.documents(gaps).tolist() == [0] * 5 + [1] * 10


@pytest.mark.parametrize("stored", [[5, 6, 2, 7, 7], [9], [*TOKENS, 2], [2, 7, 6, 2]])
def test_what_is_no_run(stored: list[int]) -> None:
    blocks = FIXED if stored != [9] else text(3, 3)
    with pytest.raises(DatastoreError, match=rf"the {len(stored)} stored tokens are no run of the 16 of 'train'"):
        locate(np.array(stored), blocks)


def test_runs_in_a_sequence_that_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    sequence = rng.integers(0, 2, 3000)
    for start, length in ((0, 3000), (1234, 500), (2999, 1), (7, 2993), (1, 200)):
        run = sequence[start : start + length]
        found = find_run(run, sequence)
        assert found is not None
        assert found <= start
        np.testing.assert_array_equal(sequence[found : found + length], run)
    other = sequence.copy()
    other[1500] ^= 1
    assert find_run(other, sequence) is None
    assert find_run(sequence, sequence[:-1]) is None
    assert find_run(np.zeros(100), np.zeros(1000)) == 0
