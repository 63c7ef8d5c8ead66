"""What an augmented decoder gives every target with RetoMaton, against a loop in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.sequence_scorer import SequenceScorer

from fairseq_knn.combiners import VanillaCombiner
from fairseq_knn.models.augmentation import Augmentation
from fairseq_knn.models.knn_decoder import augment
from fairseq_knn.retrieval import Retriever, open_automaton
from tests.support import write_datastore
from tests.unit.models import tiny
from tests.unit.models.tiny import DICTIONARY
from tests.unit.retrieval import loops

FEW = ["transformer pre-norm tied", "lightconv untied", "lstm tied", "fconv untied"]
K, WEIGHT, TEMPERATURE = 4, 0.6, 2.0


def near(model: Any, path: Path) -> Any:
    """A datastore of sentences near the model's own states, with few tokens."""
    with torch.no_grad():
        augment(model, "decoder_output", lambda: None)
        with model.decoder.knn_record() as recording:
            tiny.forward(model)
    rng = np.random.default_rng(0)
    own = recording.states[0].flatten(0, 1).numpy()
    keys = np.concatenate([own + 0.01 * rng.normal(size=own.shape) for _ in range(8)])
    targets = tiny.sample()["target"].flatten().numpy()
    values = np.where(rng.random(len(keys)) < 0.7, np.tile(targets, 8), rng.integers(4, tiny.V, len(keys)))
    lengths = [5] * (len(keys) // 5)  # those of the batch
    return write_datastore(path, keys, values, lengths, vocabulary_size=tiny.V), recording.states[0]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("min_knns", [0, 1, 3])
def test_every_target_equals_the_loop(tmp_path: Path, name: str, min_knns: int) -> None:
    """With 0 there is no automaton: kNN-LM and kNN-MT."""
    model, sample = tiny.build(name), tiny.sample()
    store, states = near(model, tmp_path / "store")
    retriever = Retriever(store, K, backend="torch", device="cpu")
    automaton = open_automaton(retriever, min_knns=min_knns, max_knns=20) if min_knns else None
    own = Augmentation(VanillaCombiner(WEIGHT, TEMPERATURE), retriever, automaton=automaton)
    target = sample["target"]
    with torch.no_grad():
        plain = model.get_normalized_probs(tiny.forward(model), log_probs=True)
        augment(model, "decoder_output", lambda: own)
        scored = []
        for batch in (0, 4):
            scorer = SequenceScorer(DICTIONARY, softmax_batch=batch)
            with model.decoder.knn_scoring(target):
                scored.append(scorer.generate([model], tiny.sample()))
    keys, values = store.keys(0, store.entries), store.values.tolist()
    continues = store.continues.tolist()
    for row in range(len(target)):
        length = int((target[row] != DICTIONARY.pad()).sum())
        tokens = target[row, :length].tolist()
        asked = states[row, :length].double().numpy()
        alone = [False] * len(values)  # nothing is pointed to
        settings = {"k": K, "min_knns": max(min_knns, 1), "max_knns": 20}
        walked = loops.walk(keys, values, continues if min_knns else alone, asked, tokens, **settings)
        expected = []
        for step, (token, (entries, distances, _)) in enumerate(zip(tokens, walked, strict=True)):
            model_alone = float(plain[row, step, token])
            mixed = loops.target_log_prob(model_alone, token, entries, distances, values, WEIGHT, TEMPERATURE)
            expected.append(mixed)
        for hypotheses in scored:
            np.testing.assert_allclose(hypotheses[row][0]["positional_scores"], expected, rtol=2e-6, atol=2e-6)
    if automaton is not None:
        assert automaton.statistics.searched > 0
        assert min_knns > 1 or automaton.statistics.saved > 0
