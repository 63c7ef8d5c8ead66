"""Stock fairseq-generate builds datastores."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_knn.cli.main import main as fairseq_knn_main
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError, DatastoreError
from tests import cli, toy

SHARDS = ("--knn-shard-sentences", 20)  # eleven of the 201 validation sentences


def assert_same_keys(left: Datastore, right: Datastore, tolerance: float = 4e-3) -> None:
    """Equal up to the rounding of float16 (keys of the toy model lie between -4 and 4)."""
    one, other = (store.keys(0, store.entries).astype(np.float32) for store in (left, right))
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def assert_holds_targets(store: Datastore, targets: dict[int, torch.Tensor]) -> None:
    """Every token of these target sentences, EOS included, in order of (sentence, position)."""
    sentences = sorted(targets)
    lengths = [len(targets[i]) for i in sentences]
    assert store.entries == sum(lengths)
    np.testing.assert_array_equal(store.values, torch.cat([targets[i] for i in sentences]).numpy())
    np.testing.assert_array_equal(store.sentences, np.repeat(sentences, lengths))
    np.testing.assert_array_equal(store.positions, np.concatenate([np.arange(n) for n in lengths]))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_every_target_position_is_stored_in_order(split: str, datastore: Path, small_datastore: Path) -> None:
    store = Datastore.load(datastore if split == "train" else small_datastore)
    targets = toy.read_side(toy.DOMAIN, split, "en")
    assert all(int(sentence[-1]) == 2 for sentence in targets)  # EOS
    assert_holds_targets(store, dict(enumerate(targets)))
    assert store.manifest.skipped == 0
    assert store.keys(0, store.entries).dtype == np.float16


def test_a_key_predicts_its_value(small_datastore: Path) -> None:
    """The model's probability of the value, computed from the stored key, is what stock scoring says."""
    store = Datastore.load(small_datastore)
    run = cli.generate(
        *toy.base_arguments(),
        *("--gen-subset", "valid", "--score-reference", "--max-tokens", 2048),
        *("--knn-lambda", 0, "--knn-datastore-path", small_datastore),
    )
    stock = run.hypotheses()
    scores = np.concatenate([stock[i].positional for i in sorted(stock)])
    projection = torch.load(toy.BASE, weights_only=False)["model"]["decoder.output_projection.weight"]
    keys = torch.from_numpy(store.keys(0, store.entries)).float()
    values = torch.from_numpy(store.values).long()
    log_probs = (keys @ projection.T).log_softmax(-1).gather(1, values[:, None])[:, 0]
    np.testing.assert_allclose(log_probs.numpy() / np.log(2), scores, rtol=0, atol=0.05)


def test_log_probabilities_are_those_of_stock_scoring(small_datastore: Path) -> None:
    run = cli.generate(
        *(toy.DOMAIN, "--task", "translation", "--path", toy.BASE, "--required-batch-size-multiple", 1),
        *("--gen-subset", "valid", "--score-reference", "--max-tokens", 2048),
    )
    stock = run.hypotheses()
    scores = np.concatenate([stock[i].positional for i in sorted(stock)])
    stored = Datastore.load(small_datastore).log_probs
    assert stored is not None
    # Printed to the base 2 with four decimals; other batches round otherwise.
    np.testing.assert_allclose(np.asarray(stored) / np.log(2), scores, rtol=0, atol=1e-4)


def test_equal_commands_give_equal_bytes(small_datastore: Path, tmp_path: Path) -> None:
    """In another process, and however many workers load the data."""
    run = cli.run(
        "fairseq-generate",
        *toy.build_arguments(tmp_path / "again", *SHARDS),
        *("--user-dir", cli.PACKAGE, "--cpu", "--num-workers", 2),
    )
    assert run.status == 0, run.log
    assert toy.content(tmp_path / "again") == toy.content(small_datastore)


@pytest.mark.parametrize(
    "limits", [("--batch-size", 1), ("--batch-size", 7), ("--max-tokens", 300)], ids=lambda x: f"{x}"
)
def test_batches_do_not_matter(limits: tuple[object, ...], small_datastore: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS, *limits)
    store, expected = Datastore.load(tmp_path), Datastore.load(small_datastore)
    np.testing.assert_array_equal(store.values, expected.values)
    np.testing.assert_array_equal(store.sentences, expected.sentences)
    np.testing.assert_array_equal(store.positions, expected.positions)
    assert_same_keys(store, expected)
    np.testing.assert_allclose(np.asarray(store.log_probs), np.asarray(expected.log_probs), rtol=0, atol=1e-4)


def test_two_ranks_at_the_same_time(small_datastore: Path, tmp_path: Path) -> None:
    arguments = [*toy.build_arguments(tmp_path, *SHARDS), "--user-dir", cli.PACKAGE, "--cpu"]
    with cli.started("fairseq-generate", *arguments, *rank_arguments(1, 2)) as other:
        mine = cli.run("fairseq-generate", *arguments, *rank_arguments(0, 2))
        assert other.wait(timeout=120) == 0
    assert mine.status == 0, mine.log
    assert f"fairseq-knn merge {tmp_path}" in mine.log
    with pytest.raises(DatastoreError, match=r"unfinished.*fairseq-knn merge"):
        Datastore.load(tmp_path)
    merge = cli.run("python", "-m", "fairseq_knn.cli.main", "merge", tmp_path)
    assert merge.status == 0, merge.log
    assert toy.content(tmp_path) == toy.content(small_datastore)


def rank_arguments(rank: int, world: int) -> tuple[object, ...]:
    return ("--distributed-world-size", world, "--distributed-rank", rank)


def test_four_ranks_one_of_them_late(small_datastore: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (3, 0, 1):
        run = toy.build(tmp_path, *SHARDS, *rank_arguments(rank, 4))
        assert run.status == 0
        planned = [60, 60, 41, 40][rank]
        assert f"{planned} of {planned} sentences of 'valid' processed" in run.closing_line
    assert fairseq_knn_main(["merge", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "8 of 11 shards; missing: 2, 6, 10:" in error
    assert error.count("\n") == 1
    toy.build(tmp_path, *SHARDS, *rank_arguments(2, 4))
    assert fairseq_knn_main(["merge", str(tmp_path)]) == 0
    assert toy.content(tmp_path) == toy.content(small_datastore)


def test_a_single_process_finishes_what_ranks_began(small_datastore: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS, *rank_arguments(1, 3))
    run = toy.build(tmp_path, *SHARDS)
    assert "7 of 11 shards to write, 4 are there already" in run.log
    assert toy.content(tmp_path) == toy.content(small_datastore)


def test_more_ranks_than_shards(tmp_path: Path) -> None:
    """A rank without work ends with status 0 and no traceback (stock would divide by zero)."""
    single, many = tmp_path / "single", tmp_path / "many"
    size = ("--knn-shard-sentences", 100)
    idle = cli.run(
        "fairseq-generate",
        *toy.build_arguments(many, *size, *rank_arguments(3, 4)),
        *("--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert idle.status == 0, idle.log
    assert "Traceback" not in idle.log
    assert "0 of 0 sentences" in idle.closing_line
    for rank in range(4):  # the idle one once more
        assert toy.build(many, *size, *rank_arguments(rank, 4)).status == 0
    assert fairseq_knn_main(["merge", str(many)]) == 0
    toy.build(single, *size)
    assert toy.content(many) == toy.content(single)


def test_a_finished_datastore_is_replaced_only_on_demand(small_datastore: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS)
    (tmp_path / "index.faiss").write_bytes(b"an index that would be stale")
    before = toy.content(tmp_path)
    with pytest.raises(DatastoreError, match=r"finished datastore.*--knn-overwrite"):
        toy.build(tmp_path, *SHARDS)
    assert toy.content(tmp_path) == before
    toy.build(tmp_path, *SHARDS, "--knn-overwrite")
    assert toy.content(tmp_path) == toy.content(small_datastore)
    toy.build(tmp_path, "--knn-key", "ffn_input", "--knn-overwrite")
    assert Datastore.load(tmp_path).manifest.plan.key == "ffn_input"


def test_an_unfinished_datastore_is_not_mixed_with_another(tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS, *rank_arguments(0, 2))
    before = toy.content(tmp_path)
    for other in (("--knn-key", "ffn_input"), ("--knn-shard-sentences", 40)):
        with pytest.raises(DatastoreError, match="unfinished datastore of another plan"):
            toy.build(tmp_path, *SHARDS, *other)
    with pytest.raises(DatastoreError, match=r"another plan.*split"):
        toy.build(tmp_path, *SHARDS, split="test")
    assert toy.content(tmp_path) == before


@pytest.mark.parametrize("key", ["ffn_input", "ffn_output"])
def test_other_hidden_states(key: str, small_datastore: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS, "--knn-key", key)
    store, usual = Datastore.load(tmp_path), Datastore.load(small_datastore)
    assert store.manifest.plan.key == key
    np.testing.assert_array_equal(store.values, usual.values)
    assert store.dimension == usual.dimension == 64
    assert np.abs(store.keys(0, 100) - usual.keys(0, 100)).max() > 0.1
    # The datastore says what its keys are; inference follows.
    run = toy.translate(tmp_path, "--score-reference", "--knn-k", 1, "--knn-lambda", 1, split="valid")
    scores = np.concatenate([h.positional for h in run.hypotheses().values()])
    assert np.mean(scores > -1e-3) > 0.99


def test_half_precision(small_datastore: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, *SHARDS, "--fp16")
    half, single = Datastore.load(tmp_path), Datastore.load(small_datastore)
    # The same model: its fingerprint is that of the checkpoint, not of its conversion.
    assert half.manifest.plan == single.manifest.plan
    np.testing.assert_array_equal(half.values, single.values)
    assert_same_keys(half, single, tolerance=0.05)


def test_sentences_too_long_for_the_model(tmp_path: Path) -> None:
    limit = ("--max-target-positions", 7)
    targets = dict(enumerate(toy.read_side(toy.DOMAIN, "valid", "en")))
    short = {i: sentence for i, sentence in targets.items() if len(sentence) <= 7}
    left_out = len(targets) - len(short)
    assert 0 < left_out < len(targets)
    with pytest.raises(ConfigurationError, match=f"^{left_out} sentences are longer.*--skip-invalid"):
        toy.build(tmp_path, *SHARDS, *limit)
    skip = "--skip-invalid-size-inputs-valid-test"
    run = toy.build(tmp_path / "skipped", "--knn-shard-sentences", 1, *limit, skip)
    store = Datastore.load(tmp_path / "skipped")
    assert store.manifest.skipped == left_out
    assert_holds_targets(store, short)
    assert f"{len(short)} of {len(short)} sentences" in run.closing_line
    assert f"{left_out} left out, longer than the model takes" in run.closing_line
    assert json.loads(run.closing_line.partition(" | ")[2])["left_out"] == left_out
    # Half of the shards are empty; searching does not mind.
    found = toy.translate(
        tmp_path / "skipped", *("--score-reference", "--knn-k", 1, "--knn-lambda", 1, skip, *limit), split="valid"
    )
    assert f"{left_out} left out" in found.closing_line
    assert np.mean(np.concatenate([h.positional for h in found.hypotheses().values()]) > -1e-3) > 0.99


def test_all_sentences_too_long(tmp_path: Path) -> None:
    with pytest.raises(DatastoreError, match="no entries: all 201 sentences of 'valid' were too long"):
        toy.build(tmp_path, "--max-target-positions", 1, "--skip-invalid-size-inputs-valid-test")


def test_a_build_is_not_resumed_with_other_length_limits(tmp_path: Path) -> None:
    """It would hold two different selections of sentences."""
    limit = ("--max-target-positions", 20, "--skip-invalid-size-inputs-valid-test")
    toy.build(tmp_path, *SHARDS, *limit, *rank_arguments(0, 2))
    with pytest.raises(DatastoreError, match=r"limits \(\d+, 20\) against \(\d+, \d+\)"):
        toy.build(tmp_path, *SHARDS, *rank_arguments(1, 2))
