"""Whether a model and a datastore belong together."""

from collections.abc import Sequence
from typing import Any

from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION, Datastore
from fairseq_knn.datastore.model_facts import ModelFacts
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.huggingface.layers import output_layer
from fairseq_knn.storage.digest import numbers_digest, parameters_digest, short


def is_huggingface(model: Any) -> bool:
    """Whether *model* is one of transformers, found without importing that."""
    return any(
        base.__name__ == "PreTrainedModel" and base.__module__.partition(".")[0] == "transformers"
        for base in type(model).__mro__
    )


def facts(model: Any) -> ModelFacts:
    """
    Raises:
        ConfigurationError: the model is none of transformers, or predicts no tokens.
    """
    if not is_huggingface(model):
        raise ConfigurationError(
            f"{type(model).__name__} is no model of transformers (a PreTrainedModel): pass what "
            "AutoModelForCausalLM.from_pretrained or AutoModelForSeq2SeqLM.from_pretrained returns (pip install "
            "'fairseq-knn[transformers]')"
        )
    weight: Any = output_layer(model).weight
    size = len(weight)
    return ModelFacts(
        fingerprint=parameters_digest(model.named_parameters()),
        name=type(model).__name__,
        kind=TRANSLATION if model.config.is_encoder_decoder else LANGUAGE_MODEL,
        vocabulary=numbers_digest(size),
        vocabulary_size=size,
    )


def check(datastores: Sequence[Datastore], model: ModelFacts, *, allow_mismatch: bool) -> None:
    """
    Raises:
        DatastoreError: a datastore was built by another model, by one that does something else, or with another
            vocabulary. The first the user can insist on.
    """
    for store in datastores:
        plan = store.plan
        size = int(store.values.max()) + 1 if plan is None else plan.vocabulary_size
        if size > model.vocabulary_size or (plan is not None and size < model.vocabulary_size and not allow_mismatch):
            raise DatastoreError(
                f"{store.path} was built with a vocabulary of {size:,} tokens, {model.name} predicts "
                f"{model.vocabulary_size:,}: use the model and tokenizer it was built with"
            )
        if plan is None:
            continue
        if plan.kind != model.kind:
            told = {TRANSLATION: "translations", LANGUAGE_MODEL: "a language model's text"}
            raise DatastoreError(
                f"{store.path} is a datastore of {told[plan.kind]}, but {model.name} "
                f"{'translates' if model.kind == TRANSLATION else 'is a language model'}: use the model it was built "
                "with, or build one with this model (KNNSaver)"
            )
        if plan.model != model.fingerprint and not allow_mismatch:
            raise DatastoreError(
                f"{store.path} was built by another model ({plan.model_name} {short(plan.model)}) than the one loaded "
                f"({model.name} {short(model.fingerprint)}): use that model in the precision it was stored with, build "
                "a datastore with this one (KNNSaver), or insist with allow_mismatch=True"
            )


def key_of(datastores: Sequence[Datastore], asked: str | None) -> str:
    """The hidden state that is key and query.

    Args:
        datastores: that know theirs.
        asked: by the user, if at all.

    Raises:
        DatastoreError: they are not the same.
    """
    kinds = {store.key for store in datastores} | ({asked} if asked else set())
    if len(kinds) > 1:
        told = ", ".join(f"{store.path}: {store.key}" for store in datastores)
        raise DatastoreError(
            f"keys of different kinds cannot be mixed ({told}{f'; asked for is {asked}' if asked else ''}): leave out "
            "key, and combine only datastores of one kind"
        )
    return next(iter(kinds))
