"""Fingerprints tell different things apart, and only those."""

import hashlib
from pathlib import Path

import pytest
import torch

from fairseq_knn.storage.digest import file_digest, parameters_digest, short, vocabulary_digest


@pytest.mark.parametrize("size", [0, 1, (1 << 22) - 1, 1 << 22, (1 << 22) + 7])
def test_file_digest_is_sha256(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "x").write_bytes(content[:size])
    advanced: list[int] = []
    assert file_digest(tmp_path / "x", advanced.append) == hashlib.sha256(content[:size]).hexdigest()
    assert sum(advanced) == size


def parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(3, 4, generator=generator) for name in ("b.weight", "a.weight", "a.bias")}


def test_order_layout_and_dtype_do_not_matter() -> None:
    given = parameters()
    expected = parameters_digest(given.items())
    assert parameters_digest(reversed(given.items())) == expected
    strided = {name: tensor.T.contiguous().T for name, tensor in given.items()}
    assert parameters_digest(strided.items()) == expected
    wide = {name: torch.nn.Parameter(tensor.double()) for name, tensor in given.items()}
    assert parameters_digest(wide.items()) == expected


def test_every_name_shape_and_number_matters() -> None:
    given = parameters()
    digests = {parameters_digest(given.items())}
    for name in given:
        changed = {other: tensor.clone() for other, tensor in given.items()}
        changed[name][2, 3] = torch.nextafter(changed[name][2, 3], torch.tensor(9.0))
        digests.add(parameters_digest(changed.items()))
        digests.add(parameters_digest({**given, name: given[name].view(4, 3)}.items()))
        digests.add(parameters_digest((other + "x" * (other == name), t) for other, t in given.items()))
    swapped = {**given, "a.weight": given["b.weight"], "b.weight": given["a.weight"]}
    digests.add(parameters_digest(swapped.items()))
    assert len(digests) == 1 + 3 * len(given) + 1


def test_half_precision_is_another_model() -> None:
    given = parameters()
    halved = {name: tensor.half() for name, tensor in given.items()}
    assert parameters_digest(halved.items()) != parameters_digest(given.items())


def test_parameters_of_no_or_one_number() -> None:
    odd = [("scalar", torch.tensor(2.0)), ("empty", torch.empty(0, 3))]
    assert parameters_digest(odd) != parameters_digest(odd[:1])


def test_vocabulary_digest() -> None:
    words = ["<s>", "a", "b", "ü"]
    assert vocabulary_digest(words) == vocabulary_digest(tuple(words))
    others = [["a", "<s>", "b", "ü"], [*words, "c"], words[:-1], ["<s>", "ab", "ü"], []]
    assert vocabulary_digest(words) not in {vocabulary_digest(other) for other in others}
    assert len(short(vocabulary_digest(words))) == 12
