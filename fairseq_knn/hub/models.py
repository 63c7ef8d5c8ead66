"""What a model of fairseq is."""

from collections.abc import Sequence
from typing import Any

from fairseq.models import FairseqLanguageModel
from torch import nn

from fairseq_knn.datastore import LANGUAGE_MODEL, TRANSLATION
from fairseq_knn.datastore.model_facts import ModelFacts
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.models.knn_decoder import KnnDecoder
from fairseq_knn.storage.digest import parameters_digest, vocabulary_digest


def models_of(model: Any) -> list[nn.Module]:
    """The models of an ensemble that fairseq's hub returned, or the model itself."""
    return list(model.models) if isinstance(getattr(model, "models", None), nn.ModuleList) else [model]


def kind_of(model: nn.Module) -> str:
    """What it does, one of a plan's kinds."""
    return LANGUAGE_MODEL if isinstance(model, FairseqLanguageModel) else TRANSLATION


def facts(model: nn.Module) -> ModelFacts:
    """
    Raises:
        ConfigurationError: the model has no decoder.
    """
    decoder: Any = getattr(model, "decoder", None)
    if decoder is None:
        raise ConfigurationError(
            f"{type(model).__name__} is neither a model of fairseq with a decoder nor one of transformers: pass what "
            "fairseq's hub or AutoModelForCausalLM.from_pretrained or AutoModelForSeq2SeqLM.from_pretrained returns "
            "(pip install 'fairseq-knn[transformers]')"
        )
    return ModelFacts(
        fingerprint=parameters_digest(model.named_parameters()),
        name=type(model).__name__,
        kind=kind_of(model),
        vocabulary=vocabulary_digest(decoder.dictionary.symbols),
        vocabulary_size=len(decoder.dictionary),
    )


def require_untouched(models: Sequence[nn.Module]) -> None:
    """
    Raises:
        ConfigurationError: one of them consults or fills datastores.
    """
    if any(isinstance(getattr(each, "decoder", None), KnnDecoder) for each in models):
        raise ConfigurationError(
            "the model consults or fills a datastore already: break_out() of what is in it first (one wrapper takes "
            "several datastores)"
        )
