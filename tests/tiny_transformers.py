"""Small models of transformers, with datastores of theirs. Nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from fairseq_knn import KNNSaver

DATA = Path(__file__).parent / "data" / "retomaton"
META = json.loads((DATA / "meta.json").read_text())
VOCABULARY = 40


def reference() -> dict[str, np.ndarray]:
    """What the authors' program computed; see tests/data/retomaton/README.md."""
    with np.load(DATA / "retomaton.npz") as arrays:
        return dict(arrays)


def tokens(name: str) -> Tensor:
    """``datastore_tokens`` (150, 14) or ``test_tokens`` (20, 14)."""
    return torch.from_numpy(reference()[name]).long()


def gpt2() -> Any:
    """The model of the reference numbers, which knows neither end nor padding."""
    torch.manual_seed(1)
    config = GPT2Config(**META["config"], bos_token_id=None, eos_token_id=None, loss_type="ForCausalLM")
    model = GPT2LMHeadModel(config)
    model.load_state_dict(load_file(DATA / "gpt2.safetensors"))
    model.generation_config.pad_token_id = 0
    return model.eval()


def marian() -> Any:
    """Random, and with a bias on its logits, which pretrained ones have and fresh ones have not."""
    torch.manual_seed(1)
    config = MarianConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        init_std=0.3,
    )
    model = MarianMTModel(config)
    model.final_logits_bias.normal_()
    return model.eval()


def t5() -> Any:
    """Random."""
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        initializer_factor=2.0,
    )
    return T5ForConditionalGeneration(config).eval()


def pairs(count: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Random sources and labels of several lengths, padded: batches of four."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(0, count, 4):
        lengths = torch.randint(3, 9, (4,), generator=generator)
        places = torch.arange(8).expand(4, 8)
        source = torch.randint(2, VOCABULARY, (4, 8), generator=generator)
        # Few target tokens, so that sequences repeat themselves.
        labels = torch.randint(2, 12, (4, 8), generator=generator)
        inside = places < lengths[:, None]
        labels = labels.masked_fill(places == lengths[:, None] - 1, 1).masked_fill(~inside, -100)
        batches.append({"input_ids": source.masked_fill(~inside, 0), "attention_mask": inside.long(), "labels": labels})
    return batches


def store_texts(path: Path, model: Any, texts: Tensor, **options: Any) -> Path:
    """A datastore of texts int64 (n, T), each of its own."""
    saver = KNNSaver(path, sequences=len(texts), **options)
    saver.break_into(model)
    with torch.no_grad():
        for batch in texts.split(7):
            model(input_ids=batch, labels=batch)
    saver.break_out()
    return path


def store_pairs(path: Path, model: Any, batches: list[dict[str, Tensor]], **options: Any) -> Path:
    """A datastore of translations."""
    saver = KNNSaver(path, sequences=sum(len(batch["labels"]) for batch in batches), **options)
    saver.break_into(model)
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    saver.break_out()
    return path
