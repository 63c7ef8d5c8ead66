"""Parts of batches, and several as one."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fairseq_knn.imitation.net_inputs import joined, rows_of

PAD = 1


def text(*rows: list[int], left: bool, pad: int = PAD) -> dict[str, Any]:
    width = max(map(len, rows))
    padded = [[pad] * (width - len(row)) + row if left else row + [pad] * (width - len(row)) for row in rows]
    return {"src_tokens": torch.tensor(padded), "src_lengths": torch.tensor([len(row) for row in rows])}


def audio(*lengths: int) -> dict[str, Any]:
    frames = torch.zeros(len(lengths), max(lengths), 2)
    for row, length in enumerate(lengths):
        frames[row, :length] = torch.arange(1, length + 1)[:, None] + 100 * row
    return {"src_tokens": frames, "src_lengths": torch.tensor(lengths)}


def contents(net_input: dict[str, Any]) -> list[list[Any]]:
    """Rows without their padding, wherever it is; audio has no zeros here."""
    source: Tensor = net_input["src_tokens"]
    padding = 0 if source.is_floating_point() else PAD
    rows = source.view(*source.shape[:2], -1)[:, :, 0]
    return [row[row.ne(padding)].tolist() for row in rows]


@pytest.mark.parametrize("left", [True, False])
def test_rows_of_text_lose_empty_columns_on_the_side_of_the_padding(left: bool) -> None:
    batch = text([7, 8, 9, 10, 2], [5, 6, 2], [4, 2], left=left)
    batch |= {"prev_output_tokens": torch.arange(6).view(3, 2), "task": "a name"}
    part = rows_of(batch, torch.tensor([1, 2]), PAD)
    expected = text([5, 6, 2], [4, 2], left=left)
    assert torch.equal(part["src_tokens"], expected["src_tokens"])
    assert torch.equal(part["src_lengths"], expected["src_lengths"])
    assert part["prev_output_tokens"].tolist() == [[2, 3], [4, 5]]
    assert part["task"] == "a name"
    assert batch["src_tokens"].shape == (3, 5)


def test_rows_of_audio_lose_empty_frames() -> None:
    part = rows_of(audio(9, 6, 3), torch.tensor([1, 2]), PAD)
    assert part["src_tokens"].shape == (2, 6, 2)
    assert contents(part) == contents(audio(9, 6, 3))[1:]


def test_no_rows() -> None:
    assert rows_of(audio(9, 6), torch.tensor([], dtype=torch.int64), PAD)["src_tokens"].shape[0] == 0


@pytest.mark.parametrize("left", [True, False])
def test_batches_of_text_are_joined_on_their_side(left: bool) -> None:
    batches = [text([4, 5, 2], [6, 2], left=left), text([7, 8, 9, 10, 2], left=left), text([11, 2], left=left)]
    whole, place = joined(batches, PAD)
    assert whole["src_lengths"].tolist() == [5, 3, 2, 2]
    assert torch.equal(whole["src_tokens"], text([7, 8, 9, 10, 2], [4, 5, 2], [6, 2], [11, 2], left=left)["src_tokens"])
    assert [contents(whole)[row] for row in place.tolist()] == [[4, 5, 2], [6, 2], [7, 8, 9, 10, 2], [11, 2]]


def test_batches_of_audio_are_joined_longest_first() -> None:
    batches = [audio(5, 2), audio(7), audio(5)]
    whole, place = joined(batches, PAD)
    assert set(whole) == {"src_tokens", "src_lengths"}
    assert whole["src_lengths"].tolist() == [7, 5, 5, 2]
    assert whole["src_tokens"].shape == (4, 7, 2)
    assert [contents(whole)[row] for row in place.tolist()] == [row for batch in batches for row in contents(batch)]
