"""Language models under stock fairseq-eval-lm: datastores, scoring, RetoMaton, generation."""

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer_lm import TransformerLanguageModel

from fairseq_knn import KNNSaver, KNNWrapper, RetomatonWrapper
from fairseq_knn.datastore import Datastore, ShardedDatastore
from fairseq_knn.datastore.layout import ARRAYS
from fairseq_knn.errors import DatastoreError, UserError
from tests import cli, lm, toy
from tests.unit.retrieval import loops

K, LAMBDA = 16, 0.25
SETTINGS = ("--knn-k", K, "--knn-lambda", LAMBDA)


class World(NamedTuple):
    """Models of one domain and datastores of another."""

    home: lm.Text
    text: lm.Text
    models: dict[str, Path]
    stores: dict[str, Path]

    def evaluate(self, name: str, *arguments: object, store: Path | None = None, split: str = "test") -> cli.Run:
        path = store or self.stores[name]
        return lm.evaluate(self.text, self.models[name], "--knn-datastore-path", path, *arguments, split=split)

    def stock(self, name: str, *arguments: object) -> cli.Run:
        return lm.evaluate(self.text, self.models[name], *arguments, task="language_modeling")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("lm")
    home = lm.write_text(root / "home", 1)
    text = lm.write_text(root / "text", 2, like=home.data)
    models = {name: lm.train(root / name, home, name) for name in lm.MODELS}
    stores = {}
    for name, model in models.items():
        stores[name] = root / f"store-{name}"
        run = lm.build(text, model, stores[name])
        assert run.status == 0, run.log[-2000:]
    return World(home, text, models, stores)


def opened(path: Path) -> ShardedDatastore:
    store = Datastore.load(path)
    assert isinstance(store, ShardedDatastore)
    return store


def values(text: lm.Text, split: str = "train") -> list[int]:
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(text.data / "dict.txt"))
    return [n for line in text.lines[split] for n in [*map(dictionary.index, line.split()), dictionary.eos()]]


def figures(run: cli.Run) -> dict[str, Any]:
    (line,) = re.findall(r"blocks (?:of '.*' )?processed.* \| (\{.*\})", run.log)
    result: dict[str, Any] = json.loads(line)
    return result


def assert_same_scores(one: cli.Run, other: cli.Run, tolerance: float = 2e-4) -> None:
    """Block by block, or, where blocks differ, token by token."""
    pairs = [[score for _, scores in sorted(lm.scores(run).items()) for score in scores] for run in (one, other)]
    assert [word for word, _ in pairs[0]] == [word for word, _ in pairs[1]]
    assert len(pairs[0]) > 100
    np.testing.assert_allclose(*([score for _, score in pair] for pair in pairs), rtol=0, atol=tolerance)


# --- datastores -----------------------------------------------------------------------------------


def test_every_token_once_in_the_order_of_the_text(world: World) -> None:
    store = opened(world.stores["plain"])
    assert store.plan.kind == "language_model"
    assert store.key == "ffn_input"
    assert store.entries == world.text.tokens("train")
    assert store.values.tolist() == values(world.text)
    np.testing.assert_array_equal(store.documents, world.text.documents("train"))
    expected = np.append(np.diff(world.text.documents("train")) == 0, False)
    np.testing.assert_array_equal(store.continues, expected)


@pytest.mark.parametrize(
    "blocks",
    [
        ("--tokens-per-sample", 13),
        ("--sample-break-mode", "complete"),
        ("--sample-break-mode", "eos"),
        ("--tokens-per-sample", 40, "--context-window", 20),
        ("--softmax-batch", 50, "--knn-shard-sentences", 7),
        ("--knn-key", "decoder_output"),
    ],
    ids=lambda blocks: " ".join(map(str, blocks)),
)
def test_whatever_the_blocks_are(world: World, tmp_path: Path, blocks: tuple[object, ...]) -> None:
    run = lm.build(world.text, world.models["plain"], tmp_path / "store", *blocks)
    assert run.status == 0, run.log[-2000:]
    store, usual = opened(tmp_path / "store"), opened(world.stores["plain"])
    for name in ("values", "documents"):
        np.testing.assert_array_equal(getattr(store, name), getattr(usual, name))
    np.testing.assert_array_equal(store.continues, usual.continues)
    # The model's own scores are stored, too.
    printed = [score for _, block in sorted(lm.scores(run).items()) for _, score in block]
    np.testing.assert_allclose(np.asarray(store.log_probs), printed, rtol=0, atol=2e-4)
    assert cli.run("python", "-m", "fairseq_knn.cli.main", "verify", tmp_path / "store").status == 0


def test_documents_without_titles_end_with_an_empty_line(world: World, tmp_path: Path) -> None:
    text = lm.write_text(tmp_path / "text", 5, titles=False, like=world.home.data)
    assert lm.build(text, world.models["plain"], tmp_path / "store").status == 0
    lines = text.lines["train"]
    begins = np.cumsum([0, *(line == "" for line in lines[:-1])])
    expected = np.repeat(begins, [len(line.split()) + 1 for line in lines])
    np.testing.assert_array_equal(opened(tmp_path / "store").documents, expected)


def test_shards_of_several_tasks_are_the_same_bytes(world: World, tmp_path: Path) -> None:
    context = ("--context-window", 8, "--knn-shard-sentences", 5)
    one, many = tmp_path / "one", tmp_path / "many"
    assert lm.build(world.text, world.models["plain"], one, *context).status == 0
    for task in range(3):
        part = ("--num-shards", 3, "--shard-id", task)
        assert lm.build(world.text, world.models["plain"], many, *context, *part).status == 0
    assert cli.run("fairseq-knn", "merge", many).status == 0
    assert toy.content(one) == toy.content(many)
    # Nothing is left to do: the run ends without stock's arithmetic over no tokens.
    with pytest.raises(DatastoreError, match="holds a finished datastore"):
        lm.build(world.text, world.models["plain"], many, *context)
    assert {path.name.split("-")[0] for path in (one / "shards").glob("*.npy")} == set(ARRAYS)


def test_a_build_goes_on_where_it_was_cut_off(world: World, tmp_path: Path) -> None:
    settings = ("--context-window", 8, "--knn-shard-sentences", 5)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for path in (whole, cut):
        assert lm.build(world.text, world.models["plain"], path, *settings).status == 0
    (cut / "manifest.json").unlink()
    for name in ("commit-00002.json", "keys-00001.npy"):
        (cut / "shards" / name).unlink()
    with pytest.raises(DatastoreError, match="of another plan"):
        lm.build(world.text, world.models["plain"], cut, "--context-window", 9, "--knn-shard-sentences", 5)
    assert lm.build(world.text, world.models["plain"], cut, *settings).status == 0
    assert toy.content(whole) == toy.content(cut)


# --- scoring --------------------------------------------------------------------------------------

BLOCKS = {
    "none": (),
    "eos": ("--sample-break-mode", "eos"),
    "complete": ("--sample-break-mode", "complete", "--batch-size", 3),
    "context": ("--tokens-per-sample", 40, "--context-window", 12),
    "context of one": ("--tokens-per-sample", 40, "--context-window", 12, "--batch-size", 1),
}


@pytest.mark.parametrize("name", lm.MODELS)
@pytest.mark.parametrize("blocks", BLOCKS)
def test_lambda_0_is_stock(world: World, name: str, blocks: str) -> None:
    mine = world.evaluate(name, "--knn-lambda", 0, *BLOCKS[blocks])
    assert figures(mine)["tokens"] == world.text.tokens("test")
    # Stock drops the last batch where it is no multiple of this.
    every = () if blocks == "eos" else ("--required-batch-size-multiple", 1)
    theirs = world.stock(name, *BLOCKS[blocks], *every)
    mine_by_block, theirs_by_block = lm.scores(mine), lm.scores(theirs)
    assert theirs_by_block
    for block, scored in theirs_by_block.items():
        assert scored == mine_by_block[block]


@pytest.mark.parametrize("name", lm.MODELS)
def test_neighbours_count_the_same_however_they_are_batched(world: World, name: str) -> None:
    once = world.evaluate(name, *SETTINGS)
    assert lm.perplexity(once) < 0.8 * lm.perplexity(world.stock(name))
    for batching in (("--softmax-batch", 7), ("--batch-size", 1), ("--max-tokens", 64, "--softmax-batch", 33)):
        assert_same_scores(once, world.evaluate(name, *SETTINGS, *batching))
    context = BLOCKS["context"]
    assert_same_scores(
        world.evaluate(name, *SETTINGS, *context),
        world.evaluate(name, *SETTINGS, *context, "--batch-size", 1, "--softmax-batch", 11),
    )


def exact(world: World, name: str, **retomaton: Any) -> list[float]:
    """Every token's log-probability, in float64, from a datastore of the test text: its keys are the queries."""
    run_store = world.stores[f"queries of {name}"]
    asked, store = opened(run_store), opened(world.stores[name])
    keys, queries = store.keys(0, store.entries), asked.keys(0, asked.entries)
    stored, own = store.values.tolist(), np.asarray(asked.log_probs, np.float64)
    result = []
    for block in np.unique(asked.sentences):
        rows = np.flatnonzero(asked.sentences == block)
        targets = asked.values[rows].tolist()
        settings = {"k": K, "min_knns": 1, "max_knns": 1024, **retomaton}
        continues = store.continues.tolist() if retomaton else [False] * store.entries
        walked = loops.walk(keys, stored, continues, queries[rows], targets, **settings)
        for row, target, (entries, distances, _) in zip(rows, targets, walked, strict=True):
            result.append(loops.target_log_prob(own[row], target, entries, distances, stored, LAMBDA, 1.0))
    return result


@pytest.mark.parametrize("name", lm.MODELS)
@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ((), {}),
        (("--knn-retomaton",), {"min_knns": 1}),
        (("--knn-retomaton", "--knn-min-knns", 4, "--knn-max-knns", 6), {"min_knns": 4, "max_knns": 6}),
        (("--knn-retomaton", "--knn-clusters", "c"), {"cluster": "c"}),
    ],
    ids=["kNN-LM", "RetoMaton", "few pointers", "clusters"],
)
def test_equals_a_slow_calculation(
    world: World, tmp_path: Path, name: str, flags: tuple[object, ...], settings: dict[str, Any]
) -> None:
    key = f"queries of {name}"
    if key not in world.stores:
        world.stores[key] = world.stores[name].with_name(key)
        building = ("--knn-mode", "build_datastore", "--knn-datastore-path", world.stores[key])
        assert lm.evaluate(world.text, world.models[name], *building).status == 0
    if settings.get("cluster"):
        from fairseq_knn.clustering import Clusters

        store = opened(world.stores[name])
        cluster = np.random.default_rng(0).integers(0, 40, store.entries).astype(np.int32)
        Clusters("c", cluster, 40, {"method": "random"}).save(store)
        settings = {"cluster": cluster.tolist()}
    run = world.evaluate(name, *SETTINGS, *flags)
    printed = [score for _, block in sorted(lm.scores(run).items()) for _, score in block]
    # Queries are rounded to half precision in the calculation alone, so a few neighbours may be others.
    difference = np.abs(np.array(printed) - exact(world, name, **settings))
    assert np.median(difference) < 1e-3
    assert (difference < 0.05).mean() > 0.9
    if flags:
        assert 0 < figures(run)["knn_foss"] < 1
        assert_same_scores(run, world.evaluate(name, *SETTINGS, *flags, "--batch-size", 1, "--softmax-batch", 9))


@pytest.mark.parametrize("flags", [(), ("--knn-retomaton",)], ids=["kNN-LM", "RetoMaton"])
def test_the_token_that_blocks_begin_with_is_not_asked_for(world: World, flags: tuple[object, ...]) -> None:
    """fairseq-eval-lm leaves it out, too."""
    run = world.evaluate("plain", *SETTINGS, "--add-bos-token", *flags)
    told = figures(run)
    assert told["tokens"] == world.text.tokens("test") == sum(map(len, lm.scores(run).values()))
    assert told["knn_queries"] <= told["tokens"]
    if flags:  # of every step that is counted
        assert told["knn_foss"] == round(1 - told["knn_queries"] / told["tokens"], 4)


def test_perplexity_is_per_word_where_subwords_are_joined(world: World, tmp_path: Path) -> None:
    lines = [line.replace("w1 ", "x@@ w1 ") for line in world.text.lines["train"]]
    for split in ("train", "test"):
        (tmp_path / split).write_text("".join(f"{line}\n" for line in lines))
    made = cli.call(
        "fairseq-preprocess",
        *("--only-source", "--trainpref", tmp_path / "train", "--testpref", tmp_path / "test"),
        *("--destdir", tmp_path / "bin", "--workers", 1),
    )
    assert made.status == 0
    text = lm.Text(tmp_path / "bin", {"train": lines, "test": lines})
    model, store = lm.train(tmp_path / "model", text, "plain"), tmp_path / "store"
    assert lm.build(text, model, store, "--remove-bpe").status == 0
    assert opened(store).entries == text.tokens("train")
    use = ("--knn-datastore-path", store, *SETTINGS)
    subwords = lm.perplexity(lm.evaluate(text, model, *use))
    joined = sum(line.count("@@ ") for line in lines)
    assert joined > 10
    per_word = subwords ** (text.tokens("test") / (text.tokens("test") - joined))
    for value in ((), ("subword_nmt",), ("@@ ",)):
        run = lm.evaluate(text, model, *use, "--remove-bpe", *value)
        assert lm.perplexity(run) == pytest.approx(per_word, rel=2e-3)


def test_min_knns_at_max_knns_always_searches(world: World) -> None:
    run = world.evaluate("plain", *SETTINGS, "--knn-retomaton", "--knn-min-knns", 9999999)
    assert figures(run)["knn_foss"] == 0
    assert lm.perplexity(run) <= 1.2 * lm.perplexity(world.evaluate("plain", *SETTINGS))


@pytest.mark.parametrize("name", lm.MODELS)
def test_no_search_where_the_model_is_sure(world: World, name: str) -> None:
    run = world.evaluate(name, *SETTINGS, "--knn-skip-threshold", 0.3)
    assert 0 < figures(run)["knn_skipped"] < 1
    assert figures(run)["knn_queries"] < world.text.tokens("test")
    assert_same_scores(run, world.evaluate(name, *SETTINGS, "--knn-skip-threshold", 0.3, "--softmax-batch", 7))


def test_defaults_are_those_of_the_paper(world: World) -> None:
    run = world.evaluate("plain")
    told = figures(run)
    store = opened(world.stores["plain"])
    assert (told["knn_k"], told["knn_lambda"]) == (min(1024, store.entries), 0.25)
    assert_same_scores(run, world.evaluate("plain", "--knn-k", told["knn_k"], "--knn-temperature", 1))


def test_tune_finds_a_setting_that_scores_as_promised(world: World, tmp_path: Path) -> None:
    run = cli.run(
        "fairseq-knn",
        *("tune", world.text.data, "--task", "language_modeling_knn", "--path", world.models["adaptive"]),
        *("--knn-datastore-path", world.stores["adaptive"], "--gen-subset", "test", "--tokens-per-sample", 40),
        *(
            "--knn-retomaton",
            "--context-window",
            12,
            "--ks",
            8,
            K,
            "--lambdas",
            LAMBDA,
            0.5,
            "--temperatures",
            1,
            10,
            "--cpu",
        ),
        *("--output", tmp_path / "grid.json"),
    )
    assert run.status == 0, run.log[-2000:]
    assert "note: every position is searched here" in run.output
    grid = json.loads((tmp_path / "grid.json").read_text())
    assert grid["tokens"] == world.text.tokens("test")
    (point,) = [p for p in grid["grid"] if (p["k"], p["weight"], p["temperature"]) == (K, LAMBDA, 1)]
    scored = world.evaluate("adaptive", *SETTINGS, *BLOCKS["context"])
    assert math.exp(point["loss"]) == pytest.approx(lm.perplexity(scored), rel=1e-3)
    assert math.exp(grid["model_loss"]) == pytest.approx(
        lm.perplexity(world.evaluate("adaptive", "--knn-lambda", 0, *BLOCKS["context"])), rel=1e-3
    )


# --- generation -----------------------------------------------------------------------------------


def continue_text(world: World, data: Path, name: str, *arguments: object) -> cli.Run:
    return cli.generate(
        *(data, "--task", "language_modeling_knn", "--path", world.models[name], "--gen-subset", "test"),
        *("--sample-break-mode", "eos", "--tokens-per-sample", 32, "--prefix-size", 3, "--max-len-b", 12),
        *("--knn-datastore-path", world.stores[name], *SETTINGS, *arguments),
    )


@pytest.mark.parametrize("name", lm.MODELS)
def test_continuing_text(world: World, tmp_path: Path, name: str) -> None:
    # Stock breaks off where a line is shorter than the prefix.
    lines = [line for line in world.text.lines["test"] if len(line.split()) > 4][:9]
    (tmp_path / "test").write_text("".join(f"{line}\n" for line in lines))
    made = cli.call(
        "fairseq-preprocess",
        *("--only-source", "--testpref", tmp_path / "test", "--srcdict", world.text.data / "dict.txt"),
        *("--destdir", tmp_path / "bin", "--workers", 1),
    )
    assert made.status == 0
    plain = continue_text(world, tmp_path / "bin", name, "--knn-lambda", 0)
    assert len(plain.hypotheses()) == len(lines)
    for flags in ((), ("--knn-retomaton",), ("--sampling", "--beam", 1, "--seed", 3)):
        run = continue_text(world, tmp_path / "bin", name, *flags)
        assert run.status == 0, run.log[-2000:]
        assert run.hypotheses().keys() == plain.hypotheses().keys()
        assert run.texts("H") != plain.texts("H")


def test_interactive(world: World) -> None:
    run = cli.run(
        "fairseq-interactive",
        *(world.text.data, "--task", "language_modeling_knn", "--path", world.models["plain"], "--max-len-b", 8),
        *("--knn-datastore-path", world.stores["plain"], *SETTINGS, "--knn-retomaton", "--cpu"),
        *("--user-dir", cli.PACKAGE),
        stdin="w1 w2\nw3\n\nw4 w5 w6\n",
    )
    assert run.status == 0, run.log[-2000:]
    assert len(run.lines("H")) == 4
    assert "4 blocks processed" in run.log


def test_pointers_follow_the_beams_of_a_translation(tmp_path: Path, datastore: Path) -> None:
    """A hypothesis of beam search has the score that its tokens get when they are given."""
    flags = ("--knn-retomaton", "--knn-k", 8, "--knn-lambda", 0.6, "--knn-min-knns", 2)
    searched = toy.translate(datastore, *flags, "--max-tokens", 600)
    hypotheses = searched.hypotheses()
    assert 0.2 < json.loads(searched.closing_line.partition(" | ")[2])["knn_foss"] < 1
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(toy.DOMAIN / "dict.en.txt"))
    source = toy.read_side(toy.DOMAIN, "test", "de")
    target = [dictionary.encode_line(hypotheses[i].text, add_if_not_exist=False).long() for i in range(len(source))]
    toy.write_split(tmp_path / "data", "test", source, target)
    for batching in (600, 2048):
        scored = toy.translate(
            datastore, *flags, "--score-reference", "--max-tokens", batching, data=tmp_path / "data"
        ).hypotheses()
        close = [
            np.allclose(scored[i].positional, hypotheses[i].positional, rtol=0, atol=1e-3)
            for i in hypotheses.keys() & scored.keys()
        ]
        # Ties between equally near entries may fall differently at k.
        assert np.mean(close) > 0.97
        assert len(close) > 0.97 * toy.TEST_SENTENCES


def test_a_model_that_predicts_a_part_of_the_dictionary(world: World, tmp_path: Path) -> None:
    from fairseq.models.transformer_lm import TransformerLanguageModel

    part = ("--output-dictionary-size", 24)
    model = lm.train(tmp_path / "model", world.home, "part", *part)
    store = tmp_path / "store"
    assert lm.build(world.text, model, store, *part).status == 0
    assert opened(store).plan.vocabulary_size == 24
    use = (*part, "--knn-datastore-path", store)
    theirs = lm.evaluate(world.text, model, *part, task="language_modeling")
    assert lm.perplexity(lm.evaluate(world.text, model, *use, "--knn-lambda", 0)) == lm.perplexity(theirs)
    assert lm.perplexity(lm.evaluate(world.text, model, *use, *SETTINGS)) < 0.8 * lm.perplexity(theirs)
    hub = TransformerLanguageModel.from_pretrained(str(model.parent), model.name, str(world.text.data))
    prompt = " ".join(hub.task.source_dictionary[number] for number in (8, 9))
    alone = hub.sample(prompt, beam=2, max_len_b=6)
    wrapper = KNNWrapper(store, k=K)
    wrapper.break_into(hub)  # recognises the dictionary
    hub.sample(prompt, beam=2, max_len_b=6)
    assert wrapper.statistics["knn_queries"] > 0
    wrapper.break_out()
    assert hub.sample(prompt, beam=2, max_len_b=6) == alone


# --- what users can mend --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--knn-lambda", 1), "--knn-lambda 1 gives every token without a neighbour the probability 0"),
        (("--knn-retomaton", "--knn-clusters", "nope"), "has no clusters 'nope'"),
        (("--knn-clusters", "c"), "--knn-clusters is a setting of RetoMaton: pass --knn-retomaton, too"),
        (("--knn-min-knns", 4), "--knn-min-knns is a setting of RetoMaton: pass --knn-retomaton, too"),
        (("--knn-retomaton", "--knn-skip-threshold", 0.5), "--knn-retomaton and --knn-skip-threshold both decide"),
        (("--knn-retomaton", "--knn-min-knns", 0), "--knn-min-knns is 0, but must be a whole number, at least 1"),
        (("--knn-combiner", "adaptive"), "--knn-combiner adaptive names a combiner that is trained for translation"),
        (("--knn-mode", "train"), "--knn-mode train goes with bilingual data: language models mix"),
        (("--remove-bpe", "sentencepiece"), "joins subwords of subword_nmt alone, but --remove-bpe"),
        (("--knn-k", 10**6), "k is 1000000, but the datastore has"),
        (("--tokens-per-sample", 1024), "tokens the model takes, so that nothing is left: pass a smaller"),
        (("--context-window", 32), "--context-window is not below --tokens-per-sample"),
        (("--context-window", 40), "--context-window is not below --tokens-per-sample"),
    ],
)
def test_one_sentence(world: World, arguments: tuple[object, ...], told: str) -> None:
    with pytest.raises(UserError) as error:
        world.evaluate("plain", *arguments)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_datastores_of_something_else(world: World, tmp_path: Path, datastore: Path) -> None:
    other = lm.write_text(tmp_path / "other", 9)
    tampered = other.data / "dict.txt"
    tampered.write_text(tampered.read_text().replace("w1 ", "x1 "))
    larger = lm.write_text(tmp_path / "larger", 9)
    symbols = larger.data / "dict.txt"
    symbols.write_text(symbols.read_text() + "".join(f"more{number} 1\n" for number in range(8)))
    use = ("--knn-datastore-path", world.stores["plain"])
    cases = [
        (lambda: world.evaluate("plain", store=datastore), "was built by a translation model, but this task runs a"),
        (lambda: toy.translate(world.stores["plain"]), "was built by a language model, but this task runs a"),
        (
            lambda: world.evaluate("plain", "--knn-retomaton", store=toy.TOY / "knnbox_datastore"),
            "was built by a translation model",
        ),
        (
            lambda: toy.translate(toy.TOY / "knnbox_datastore", "--knn-retomaton"),
            "does not record where in the text its entries stood",
        ),
        (lambda: world.evaluate("plain", store=world.stores["adaptive"]), "was built by another model"),
        (lambda: lm.evaluate(other, world.models["plain"], *use), "was built with another target dictionary (48"),
        # Before the model is loaded, which does not fit.
        (lambda: lm.evaluate(larger, world.models["plain"], *use), "was built with another target dictionary (48"),
    ]
    for run, told in cases:
        with pytest.raises(UserError) as error:
            run()
        assert told in str(error.value)


def test_without_a_datastore(world: World) -> None:
    with pytest.raises(UserError, match=r"--knn-datastore-path is missing: .* --task language_modeling for the model"):
        lm.evaluate(world.text, world.models["plain"])


def test_one_sentence_and_status_1_from_the_program(world: World) -> None:
    run = cli.run(
        "fairseq-eval-lm",
        *(world.text.data, "--task", "language_modeling_knn", "--path", world.models["plain"], "--gen-subset", "test"),
        *("--knn-datastore-path", world.stores["plain"], "--knn-lambda", 1, "--user-dir", cli.PACKAGE, "--cpu"),
    )
    assert run.status == 1
    assert len(run.errors) == 1
    assert "Traceback" not in run.log


def test_a_datastore_is_of_one_data_directory(world: World, tmp_path: Path) -> None:
    both = lm.Text(Path(f"{world.home.data}:{world.text.data}"), {})
    with pytest.raises(UserError, match="DATA names 2 directories, but 'train' is read from the first alone"):
        lm.build(both, world.models["plain"], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_half_precision(world: World) -> None:
    for name in lm.MODELS:
        whole, half = (world.evaluate(name, *SETTINGS, *flags) for flags in ((), ("--fp16",)))
        assert lm.perplexity(half) == pytest.approx(lm.perplexity(whole), rel=0.02)
    assert torch.get_default_dtype() == torch.float32


def test_model_of_the_hub(world: World) -> None:
    """In a notebook, with the defaults of language models."""
    path, lines = world.models["plain"], [line for line in world.text.lines["test"] if line]
    hub = TransformerLanguageModel.from_pretrained(str(path.parent), path.name, str(world.text.data))

    def loss() -> float:
        scores = torch.cat([hypothesis["positional_scores"] for hypothesis in hub.score(lines)])
        return -float(scores.mean())

    alone = loss()
    losses = {}
    for wrapper in (KNNWrapper(world.stores["plain"]), RetomatonWrapper(world.stores["plain"], min_knns=4)):
        wrapper.break_into(hub)
        losses[type(wrapper)] = loss()
        figures = wrapper.statistics
        wrapper.break_out()
        assert figures["knn_lambda"] == LAMBDA
        assert figures["knn_k"] == min(1024, opened(world.stores["plain"]).entries)
    assert losses[KNNWrapper] < alone
    assert losses[RetomatonWrapper] < alone
    assert 0 < figures["knn_foss"] < 1
    assert loss() == alone
    with pytest.raises(DatastoreError, match="built by a language model, but"):
        KNNWrapper(world.stores["plain"]).break_into(
            TransformerModel.from_pretrained(str(toy.TOY), "base.pt", str(toy.DOMAIN))
        )


def test_saver_in_a_model_of_the_hub(world: World, tmp_path: Path) -> None:
    path, lines = world.models["plain"], [line for line in world.text.lines["train"] if line]
    hub = TransformerLanguageModel.from_pretrained(str(path.parent), path.name, str(world.text.data)).eval()
    saver = KNNSaver(tmp_path / "store", sequences=len(lines))
    saver.break_into(hub)
    with torch.no_grad():
        for line in lines[saver.stored :]:
            hub.score(line)
    saver.break_out()
    store = opened(tmp_path / "store")
    assert store.plan.kind == "language_model"
    # The hub does not score the end of a sentence.
    assert store.values.tolist() == [int(token) for line in lines for token in hub.encode(line)[:-1]]
    assert store.log_probs is not None
    alone = -float(np.mean(store.log_probs[:]))
    KNNWrapper(tmp_path / "store", k=16).break_into(hub)
    assert -float(torch.cat([hub.score(line)["positional_scores"] for line in lines]).mean()) < alone
