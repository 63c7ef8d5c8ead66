"""The likeliest tokens of an expert."""

import pytest
import torch
from torch import Tensor

from fairseq_knn.imitation.beliefs import renormalised, top_k


def random_probabilities(rows: int, vocabulary: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (3 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)).softmax(dim=1).to(dtype)


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_likeliest_first_with_a_mass_of_one(k: int, dtype: torch.dtype) -> None:
    probabilities = random_probabilities(40, 11, dtype)
    belief = top_k(probabilities, k)
    assert belief.tokens.dtype == torch.int64
    assert belief.probabilities.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(belief.probabilities.sum(dim=1), torch.ones(40), check_dtype=False)
    for row, tokens, theirs in zip(probabilities.tolist(), *belief, strict=True):
        best = sorted(range(11), key=lambda token: (-row[token], token))[:k]
        assert tokens.tolist() == best
        total = sum(row[token] for token in best)
        assert theirs.tolist() == pytest.approx([row[token] / total for token in best], rel=1e-6)


@pytest.mark.parametrize("k", range(1, 8))
def test_of_equals_the_lower_id_is_first(k: int) -> None:
    probabilities = torch.tensor(
        [
            [0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1],
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5],
            [1 / 7] * 7,
            [0.1, 0.3, 0.15, 0.05, 0.2, 0.12, 0.08],
        ]
    )
    expected = torch.tensor(
        [
            [1, 3, 5, 0, 2, 4, 6],
            [2, 0, 1, 3, 4, 5, 6],
            [1, 6, 0, 2, 3, 4, 5],
            [0, 1, 2, 3, 4, 5, 6],
            [1, 4, 2, 5, 0, 6, 3],
        ]
    )
    belief = top_k(probabilities, k)
    assert torch.equal(belief.tokens, expected[:, :k])
    torch.testing.assert_close(belief.probabilities, renormalised(probabilities.gather(1, expected[:, :k])))


def test_many_equals_in_a_large_vocabulary() -> None:
    """What torch picks of equals depends on sizes and devices."""
    probabilities = torch.zeros(20, 5000)
    probabilities[:, 4000:] = torch.arange(20)[:, None] % 2 / 1000
    probabilities[:, 3] = 0.25
    tokens = top_k(probabilities, 4).tokens
    assert tokens[0::2].tolist() == [[3, 0, 1, 2]] * 10
    assert tokens[1::2].tolist() == [[3, 4000, 4001, 4002]] * 10
