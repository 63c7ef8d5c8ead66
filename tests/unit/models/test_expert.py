"""A frozen model that is asked."""

import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor, nn

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.imitation.beliefs import DenseBelief, SparseBelief
from fairseq_knn.models.expert import Expert, load_expert
from tests import models, toy

EOS, PAD = 2, 1
PREFIX = torch.tensor([[2, 5, 6, 7], [2, 8, 9, PAD], [2, 10, PAD, PAD]])
ROWS = PREFIX.ne(PAD).flatten().nonzero().squeeze(1)


def source(arch: str = "transformer") -> dict[str, Tensor]:
    """Padded on the right, not sorted by length."""
    if arch in models.SPEECH:
        return models.net_input(arch, [7, 5, 3])
    return {
        "src_tokens": torch.tensor([[4, 5, EOS, PAD, PAD], [6, 7, 8, 9, EOS], [10, EOS, PAD, PAD, PAD]]),
        "src_lengths": torch.tensor([3, 5, 2]),
    }


def plain(model: nn.Module, source: dict[str, Tensor]) -> Tensor:
    """Probabilities as a forward pass gives them, (n, V): of each sentence alone, where padding changes nothing."""
    if source["src_tokens"].is_floating_point():
        return model(**source, prev_output_tokens=PREFIX)[0].softmax(dim=-1).flatten(0, 1)[ROWS].detach()  # type: ignore[no-any-return]
    rows = []
    for row, length in enumerate(source["src_lengths"].tolist()):
        one = {"src_tokens": source["src_tokens"][[row], :length], "src_lengths": torch.tensor([length])}
        net_output = model(**one, prev_output_tokens=PREFIX[[row]])
        rows.append(net_output[0].softmax(dim=-1)[0])
    return torch.stack(rows).flatten(0, 1)[ROWS].detach()


@pytest.mark.parametrize("arch", ["transformer", "lstm", "s2t_transformer"])
def test_beliefs_are_those_of_a_plain_pass(arch: str) -> None:
    """With transcripts in any order, also for recurrent experts."""
    model = models.untrained(arch)
    expert, sources = Expert(model, "expert.pt"), source(arch)
    expected = plain(model, sources)
    full = expert.beliefs(sources, PREFIX, "full")(ROWS)
    assert isinstance(full, DenseBelief)
    torch.testing.assert_close(full.probabilities, expected, atol=2e-5, rtol=1e-3)
    likeliest = expert.beliefs(sources, PREFIX, "argmax")(ROWS)
    assert isinstance(likeliest, SparseBelief)
    assert torch.equal(likeliest.tokens[:, 0], full.probabilities.argmax(dim=1))
    assert torch.equal(likeliest.probabilities, torch.ones(len(ROWS), 1))
    some = expert.beliefs(sources, PREFIX, "topk", 3)(ROWS)
    assert isinstance(some, SparseBelief)
    best = full.probabilities.topk(3)
    assert torch.equal(some.tokens, best.indices)
    torch.testing.assert_close(some.probabilities, best.values / best.values.sum(dim=1, keepdim=True))


def test_parts_of_the_positions_are_parts_of_the_beliefs() -> None:
    expert = Expert(models.untrained("transformer"), "expert.pt")
    whole = expert.beliefs(source(), PREFIX, "full")(ROWS)
    believe = expert.beliefs(source(), PREFIX, "full")
    parts = [believe(part) for part in (ROWS[:2], ROWS[2:])]
    assert isinstance(whole, DenseBelief)
    found = torch.cat([part.probabilities for part in parts])
    torch.testing.assert_close(found, whole.probabilities)


def test_it_is_frozen() -> None:
    model = models.untrained("transformer")
    expert = Expert(model, "expert.pt")
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    belief = expert.beliefs(source(), PREFIX, "full")(ROWS)
    assert isinstance(belief, DenseBelief)
    assert not belief.probabilities.requires_grad
    assert not isinstance(expert, nn.Module)


def test_what_is_no_expert() -> None:
    model = models.untrained("transformer")
    model.decoder.adaptive_softmax = object()
    with pytest.raises(ConfigurationError, match="adaptive softmax"):
        Expert(model, "expert.pt")


def test_sentences_that_are_too_long() -> None:
    expert = Expert(models.untrained("transformer", max_source_positions=4, max_target_positions=9), "expert.pt")
    assert expert.longest[0] == 4
    with pytest.raises(ConfigurationError, match="a source sentence has 5 symbols"):
        expert.beliefs(source(), PREFIX, "argmax")


def task_of(settings: Any) -> TranslationTask:
    dictionaries = [Dictionary.load(str(toy.DOMAIN / f"dict.{language}.txt")) for language in ("de", "en")]
    return TranslationTask(TranslationConfig(), *dictionaries)


def parameters(path: Path | str) -> dict[str, Tensor]:
    return dict(load_expert(str(path), task_of).model.state_dict())


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    state = torch.load(toy.BASE, weights_only=False)
    change(state)
    torch.save(state, path)
    return path


def with_namespace(state: dict[str, Any]) -> None:
    state["cfg"]["model"] = (
        Namespace(**dict(state["cfg"]["model"].items()), arch="transformer")
        if isinstance(state["cfg"]["model"], dict)
        else state["cfg"]["model"]
    )


def with_halves(state: dict[str, Any]) -> None:
    state["model"] = {name: value.half() for name, value in state["model"].items()}


def with_files_that_are_gone(state: dict[str, Any]) -> None:
    setting = state["cfg"]["model"]
    put = setting.__setitem__ if isinstance(setting, dict) else lambda *item: setattr(setting, *item)
    put("load_pretrained_encoder_from", "gone.pt")
    put("encoder_embed_path", "gone.txt")


def test_every_style_of_checkpoints(tmp_path: Path) -> None:
    expected = dict(torch.load(toy.BASE, weights_only=False)["model"])
    for number, change in enumerate((lambda state: None, with_namespace, with_halves, with_files_that_are_gone)):
        found = parameters(changed(tmp_path / f"{number}.pt", change))
        tolerance = 1e-3 if change is with_halves else 0
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=tolerance, rtol=tolerance)
        assert found["encoder.embed_tokens.weight"].dtype == torch.float32
    assert parameters(toy.ARGS_STYLE).keys() >= expected.keys()
    old = tmp_path / "old.pt"
    torch.save(torch.load(toy.BASE, weights_only=False), old, _use_new_zipfile_serialization=False)
    assert parameters(old).keys() >= expected.keys()


def truncated(path: Path) -> None:
    path.write_bytes(toy.BASE.read_bytes()[:5000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("the quick brown fox\n" * 20)


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 20)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def parameters_alone(path: Path) -> None:
    torch.save(torch.load(toy.BASE, weights_only=False)["model"], path)


def no_settings(path: Path) -> None:
    changed(path, lambda state: state.update(cfg=None, args=None))


def directory(path: Path) -> None:
    path.mkdir()


def an_evaluated_one(path: Path) -> None:
    torch.save({"cfg": eval, "model": {}}, path)


@pytest.mark.parametrize(
    "write",
    [truncated, emptied, text, noise, a_list, parameters_alone, no_settings, directory, an_evaluated_one],
    ids=lambda write: write.__name__,
)
def test_what_is_no_checkpoint(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "expert.pt"
    write(path)
    with pytest.raises(ConfigurationError, match=r"expert\.pt (cannot be read|is no )"):
        load_expert(str(path), task_of)


def test_nothing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--expert is missing"):
        load_expert(None, task_of)


@pytest.mark.parametrize(
    ("arch", "message"),
    [("transformer_lm", "has an encoder and a decoder"), ("nobodys", "nobodys, which is not registered")],
)
def test_other_architectures(arch: str, message: str, tmp_path: Path) -> None:
    def rename(state: dict[str, Any]) -> None:
        setting = state["cfg"]["model"]
        for name in ("arch", "_name"):
            if isinstance(setting, dict):
                setting[name] = arch
            else:
                setattr(setting, name, arch)

    with pytest.raises(ConfigurationError, match=message):
        load_expert(str(changed(tmp_path / "expert.pt", rename)), task_of)


def test_other_dictionaries(tmp_path: Path) -> None:
    def of_others(settings: Any) -> TranslationTask:
        return TranslationTask(TranslationConfig(), models.dictionary(), models.dictionary())

    with pytest.raises(ConfigurationError, match="does not fit its dictionaries"):
        load_expert(str(toy.BASE), of_others)
    shutil.rmtree(tmp_path)
