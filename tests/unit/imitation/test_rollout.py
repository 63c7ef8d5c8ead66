"""Greedy and sampled translations of a student, made with no trace."""

from unittest import mock

import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from fairseq_knn.imitation import rollout
from fairseq_knn.imitation.net_inputs import rows_of
from fairseq_knn.imitation.rollout import roll_out
from tests import models

EOS, PAD = 2, 1
ARCHITECTURES = ("transformer", "s2t_transformer", "lstm", "s2t_berard")
LENGTHS = [9, 9, 8, 7, 6, 6, 5, 5, 4, 3, 3, 2]


def limits(limit: int, rows: int = len(LENGTHS)) -> Tensor:
    return torch.full((rows,), limit)


def as_lists(hypotheses: list[Tensor]) -> list[list[int]]:
    return [hypothesis.tolist() for hypothesis in hypotheses]


def searched(model: nn.Module, net_input: dict[str, Tensor], limit: int) -> list[list[int]]:
    """What stock's search finds with beam 1; it ends what is too long."""
    search = SequenceGenerator(
        [model.eval()], models.dictionary(), beam_size=1, max_len_a=0, max_len_b=limit, min_len=1
    )
    found = search.generate([model], {"net_input": net_input})
    return [hypotheses[0]["tokens"].tolist()[:limit] for hypotheses in found]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_it_is_stocks_search_with_beam_1(arch: str) -> None:
    """Also while rows that have ended are taken out of the batch, and where the limit is reached."""
    model = models.untrained(arch)
    net_input = models.net_input(arch, LENGTHS)
    found = as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD))
    assert found == searched(model, net_input, 14)
    lengths = {len(hypothesis) for hypothesis in found}
    assert len(lengths) > 3  # the batch has shrunk step by step
    assert any(EOS not in hypothesis for hypothesis in found)
    assert all(hypothesis[0] != EOS and PAD not in hypothesis for hypothesis in found)


@pytest.mark.parametrize("keep", [0.0, 1.1])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_when_rows_are_taken_out_changes_nothing(arch: str, keep: float) -> None:
    """Never, or at once."""
    model, net_input = models.untrained(arch), models.net_input(arch, LENGTHS)
    expected = as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD))
    with mock.patch.object(rollout, "_KEEP", keep):
        assert as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD)) == expected


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_row_has_its_limit(arch: str) -> None:
    model, net_input = models.untrained(arch), models.net_input(arch, LENGTHS)
    whole = as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD))
    each = torch.arange(len(LENGTHS)) % 5
    found = as_lists(roll_out(model, net_input, each, eos=EOS, pad=PAD))
    assert found == [hypothesis[:limit] for hypothesis, limit in zip(whole, each.tolist(), strict=True)]
    assert as_lists(roll_out(model, net_input, limits(0), eos=EOS, pad=PAD)) == [[]] * len(LENGTHS)


@pytest.mark.parametrize("arch", ["transformer", "lstm", "s2t_transformer"])
def test_part_of_a_batch_is_decoded_as_in_the_whole(arch: str) -> None:
    model, net_input = models.untrained(arch), models.net_input(arch, LENGTHS)
    whole = as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD))
    rows = torch.tensor([3, 4, 8, 11])
    part = roll_out(model, rows_of(net_input, rows, PAD), limits(14, len(rows)), eos=EOS, pad=PAD)
    assert as_lists(part) == [whole[row] for row in rows.tolist()]


def test_a_given_beginning_is_kept_and_continued() -> None:
    model, net_input = models.untrained("transformer"), models.net_input("transformer", LENGTHS)
    forced = torch.arange(4, 4 + 2 * len(LENGTHS)).remainder(20).add(4).view(-1, 2)
    found = roll_out(model, net_input, limits(14), eos=EOS, pad=PAD, forced=forced)
    assert [hypothesis[:2].tolist() for hypothesis in found] == forced.tolist()
    model.eval()
    encoded = model.encoder(**net_input)  # type: ignore[operator]
    after = torch.cat([torch.full((len(LENGTHS), 1), EOS), forced], dim=1)
    expected = model.decoder(after, encoder_out=encoded)[0][:, -1]  # type: ignore[operator]
    expected[:, PAD] = -torch.inf
    assert [int(hypothesis[2]) for hypothesis in found] == expected.argmax(dim=1).tolist()


def test_the_end_may_follow_a_given_beginning_at_once_but_not_come_first() -> None:
    model, net_input = models.untrained("lstm"), models.net_input("lstm", LENGTHS)
    with torch.no_grad():  # whatever comes before, the end is the likeliest
        model.decoder.fc_out.bias.zero_()[EOS] = 1e4  # type: ignore[union-attr,operator]
    forced = torch.full((len(LENGTHS), 1), 7)
    found = roll_out(model, net_input, limits(5), eos=EOS, pad=PAD, forced=forced)
    assert as_lists(found) == [[7, EOS]] * len(LENGTHS)
    free = as_lists(roll_out(model, net_input, limits(5), eos=EOS, pad=PAD))
    assert all(hypothesis[0] not in (EOS, PAD) and hypothesis[1:] == [EOS] for hypothesis in free)


def test_sampling_among_one_is_greedy() -> None:
    model, net_input = models.untrained("transformer"), models.net_input("transformer", LENGTHS)
    greedy = roll_out(model, net_input, limits(14), eos=EOS, pad=PAD)
    sampled = roll_out(model, net_input, limits(14), eos=EOS, pad=PAD, top_k=1, generator=torch.Generator())
    assert as_lists(sampled) == as_lists(greedy)


def test_sampling_draws_among_the_likeliest_as_often_as_they_are_likely() -> None:
    model = models.untrained("transformer", seed=3)
    one = models.net_input("transformer", [4])
    many = {name: value.expand(4000, *value.shape[1:]) for name, value in one.items()}
    generator = torch.Generator().manual_seed(5)
    first = torch.cat(roll_out(model, many, limits(1, 4000), eos=EOS, pad=PAD, top_k=3, generator=generator))
    model.eval()
    logits = model.decoder(torch.tensor([[EOS]]), encoder_out=model.encoder(**one))[0][0, 0]  # type: ignore[operator]
    logits[[EOS, PAD]] = -torch.inf
    best, tokens = logits.topk(3)
    share = first.bincount(minlength=24)[tokens] / 4000
    assert share.sum() == 1
    torch.testing.assert_close(share, best.softmax(dim=0), atol=0.035, rtol=0)  # 4 standard deviations and more


def test_sampling_is_reproducible_and_uses_its_generator_alone() -> None:
    model, net_input = models.untrained("transformer"), models.net_input("transformer", LENGTHS)

    def sampled(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD, top_k=4, generator=generator))

    assert sampled(1) == sampled(1) != sampled(2)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_trace_is_left(arch: str) -> None:
    model, net_input = models.untrained(arch), models.net_input(arch, LENGTHS)
    next(iter(model.decoder.children())).eval()  # type: ignore[union-attr]  # a frozen part
    modes = {name: module.training for name, module in model.named_modules()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.set_num_updates(17)  # type: ignore[operator]
    state = torch.random.get_rng_state()
    sources = {name: value.clone() for name, value in net_input.items()}
    found = roll_out(model, net_input, limits(14), eos=EOS, pad=PAD)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, sources[name]) for name, value in net_input.items())
    assert getattr(model.encoder, "num_updates", 17) == 17
    assert all(parameter.grad is None for parameter in model.parameters())
    assert as_lists(found) == as_lists(roll_out(model, net_input, limits(14), eos=EOS, pad=PAD))  # no dropout


def test_modes_come_back_after_an_error() -> None:
    model, net_input = models.untrained("transformer"), models.net_input("transformer", LENGTHS)
    with (
        mock.patch.object(model.decoder, "forward", side_effect=RuntimeError("out of memory")),
        pytest.raises(RuntimeError),
    ):
        roll_out(model, net_input, limits(14), eos=EOS, pad=PAD)
    assert all(module.training for module in model.modules())
