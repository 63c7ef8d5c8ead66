"""Converting a datastore of knn-transformers: some keys are computed again from the stored tokens themselves.

Its example program, ``run_clm``, concatenates a thousand texts and moves a window of L tokens (``--block_size``) over
them in steps of S (``--stride``); the last S tokens of a window are stored, each with what precedes it in the window.
So what is stored is the text, but for the first token of every thousand texts.
"""

import argparse
from typing import Any, NoReturn

import numpy as np
import torch

from fairseq_knn.cli.conversions.prepared import Prepared, check_dimension, check_values, judge, per_shard
from fairseq_knn.datastore import LANGUAGE_MODEL, BareDatastore, Plan
from fairseq_knn.datastore.conversion import filled_entries, sentence_lengths
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.fitting import facts
from fairseq_knn.huggingface.layers import KEY_KINDS, HiddenStateTap

_LONGEST_WINDOW = 1024  # tokens, unless it is given
_WINDOWS = 2  # computed again; a thousand texts have more than three times as many tokens as one has


def prepare(
    source: BareDatastore, model_name: str, block_size: int | None, stride: int, arguments: list[str]
) -> Prepared:
    """
    Args:
        source: what is converted.
        model_name: directory of the model that built it, or its name.
        block_size: L; ``None`` for what ``run_clm`` takes unless told.
        stride: S.
        arguments: further flags, those of the tasks that say how datastores are written.

    Raises:
        UserError: model and datastore do not belong together.
    """
    flags = _flags(source, arguments)
    model = _load(model_name)
    known = facts(model)
    values = source.values[: filled_entries(source)]
    check_values(values, known.vocabulary_size, source.path, f"vocabulary of {model_name}")
    if known.kind == LANGUAGE_MODEL:
        window = block_size or min(_LONGEST_WINDOW, getattr(model.config, "max_position_embeddings", _LONGEST_WINDOW))
        if stride > window:
            raise ConfigurationError(
                f"--stride is {stride}, but the window of --block-size has {window} tokens: pass both as they were "
                f"when {source.path} was built"
            )
        _check_keys(source, values, model, flags, window, stride)
        ends = np.append(np.arange(stride, len(values), stride), len(values))
        lengths, documents = np.diff(ends, prepend=0), np.zeros(len(values), np.int64)
        print(f"where the texts of {source.path} begin is not recorded: pointers go on from one to the next")
    else:
        print(f"what {source.path} was translated from is not recorded, so its keys are not computed again")
        lengths, documents = sentence_lengths(values, model.config.eos_token_id), None
    plan = Plan(
        model=known.fingerprint,
        model_name=known.name,
        vocabulary=known.vocabulary,
        vocabulary_size=known.vocabulary_size,
        key=flags.knn_key,
        split="train",
        data=source.digest,
        sentences=len(lengths),
        shard_sentences=per_shard(lengths, flags.knn_shard_sentences),
        kind=known.kind,
    )
    return Prepared(plan, lengths, documents, flags.knn_overwrite)


def _flags(source: BareDatastore, arguments: list[str]) -> argparse.Namespace:
    """
    Raises:
        ConfigurationError: there are others.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--knn-key", choices=KEY_KINDS, default=source.key)
    parser.add_argument("--knn-shard-sentences", type=int)
    parser.add_argument("--knn-overwrite", action="store_true")
    parser.add_argument("--knn-allow-mismatch", action="store_true")
    parser.error = _refuse  # type: ignore[method-assign]
    return parser.parse_args(arguments)


def _refuse(message: str) -> NoReturn:
    raise ConfigurationError(f"{message} (with --transformers there is no DATA, and no flag of fairseq but --knn-...)")


def _load(name: str) -> Any:
    """
    Raises:
        ConfigurationError: transformers is not installed, or has no such model.
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    except ImportError as error:
        raise ConfigurationError(
            f"--transformers needs that package ({error}): pip install 'fairseq-knn[transformers]'"
        ) from error
    try:
        config = AutoConfig.from_pretrained(name)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--transformers names {name}, which is not loaded ({str(error).strip().splitlines()[0]}): name the "
            "directory of a model, or one of the hub that can be reached"
        ) from error
    return model.eval()


def _check_keys(
    source: BareDatastore, values: np.ndarray, model: Any, flags: argparse.Namespace, window: int, stride: int
) -> None:
    """Whether the model at hand computes the keys that are stored.

    Args:
        source: where they are.
        values: the tokens that are stored: entry i is token i + 1 of the text.
        model: at hand.
        flags: of the command.
        window, stride: L and S.

    Raises:
        DatastoreError: it does not.
    """
    tap = HiddenStateTap(model, flags.knn_key)
    errors = []
    # Windows of the text's second token and of later ones. Without overlap the first token of every window is missing.
    for step in range(-(-(window - stride + 1) // stride), len(values) // stride if stride < window else 0)[:_WINDOWS]:
        first = step * stride  # token of those that were stored of this window
        begin, end = first + stride - window - 1, first + stride - 1  # entries
        tokens = torch.from_numpy(values[begin:end].astype(np.int64)).unsqueeze(0)
        with torch.no_grad():
            model(input_ids=tokens)
        states = tap.take(1)[0].float().numpy()
        check_dimension(source.dimension, states.shape[1], source.path)
        computed = states[window - stride - 1 : -1]
        stored = source.keys(first - 1, end).astype(np.float32)
        errors.append(np.linalg.norm(stored - computed) / np.linalg.norm(computed))
    tap.remove()
    if not errors:
        print(f"{source.path} is too small for its keys to be computed again")
        return
    judge(
        np.array(errors),
        f"{len(errors)} windows of {window} stored tokens were computed again",
        "the model (--transformers) it was built with, and --block-size and --stride as they were then",
        insists=flags.knn_allow_mismatch,
    )
