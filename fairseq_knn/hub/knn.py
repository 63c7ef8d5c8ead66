"""Datastores for a model of fairseq that is loaded already."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from torch import nn

from fairseq_knn.datastore import LANGUAGE_MODEL, Datastore
from fairseq_knn.errors import DatastoreError
from fairseq_knn.hub.models import kind_of, models_of, require_untouched
from fairseq_knn.models.knn_decoder import knn_decoder, restore, take_fingerprint
from fairseq_knn.retrieval import Retriever
from fairseq_knn.tasks.knn.combiner import make_combiner
from fairseq_knn.tasks.knn.config import KnnConfig, LanguageModelKnnConfig, check_config
from fairseq_knn.tasks.knn.retrieval import check_kind_of
from fairseq_knn.tasks.knn.session import KnnSession, vocabulary_of
from fairseq_knn.wrapper_settings import OF_RETOMATON, WrapperSettings


class HubKnn:
    """Lets a fairseq model, or what its hub returns, consult datastores.

    The decoder gets a subclass of its own class, no parameter moves.

    Args:
        model: a fairseq model with a decoder, or what ``from_pretrained`` and ``torch.hub.load`` return.
        datastores: searched as one; in an ensemble every model searches those it built.
        settings: of retrieval.

    Raises:
        ConfigurationError: the model consults datastores already, or it has no decoder that can be augmented.
        DatastoreError: a datastore was built by another model or with another dictionary.
        SearchIndexError: an index is needed and missing, stale or damaged.
    """

    def __init__(self, model: Any, datastores: Sequence[Datastore], settings: WrapperSettings) -> None:
        models = models_of(model)
        require_untouched(models)
        config = _config(settings, LanguageModelKnnConfig if kind_of(models[0]) == LANGUAGE_MODEL else KnnConfig)
        for store in datastores:
            check_kind_of(store, config)
        self._session = KnnSession(config, datastores)
        make_combiner(
            self._session.config, config.knn_combiner
        )  # what is wrong with it is said before the model is changed
        self._models: list[nn.Module] = []
        try:
            for each in models:
                self._session.adopt(each)
                self._models.append(each)
                take_fingerprint(each)
            self._session.prepare(vocabulary_of(knn_decoder(models[0]).dictionary))
        except DatastoreError as error:
            self.break_out()
            if "was built by another model" not in str(error):
                raise
            raise DatastoreError(
                f"{error} (a model whose parameters were changed after loading is not recognised: break in before "
                "half(); fairseq's hub takes the weight norm out of convolutional models, so pass allow_mismatch=True "
                "there)"
            ) from None
        except BaseException:
            self.break_out()
            raise

    def break_out(self) -> None:
        """Make the model what it was before."""
        while self._models:
            restore(self._models.pop())

    def statistics(self) -> dict[str, Any]:
        """What retrieval has cost so far."""
        return self._session.statistics()

    @property
    def retrievers(self) -> list[Retriever]:
        """What searches, one for each model; none if lambda is 0."""
        return self._session.retrievers


def _config(settings: WrapperSettings, kind: type[KnnConfig]) -> KnnConfig:
    """The same as flags of the tasks."""
    if settings.no_pointer:  # no flag has that, for then it is the task without RetoMaton
        settings = replace(settings, **{name: _DEFAULTS[name] for name in ("retomaton", *OF_RETOMATON)})
    config = kind()
    for name in _DEFAULTS:
        if name != "no_pointer":
            setattr(config, f"knn_{_CALLED.get(name, name)}", getattr(settings, name))
    check_config(config)
    return config


_CALLED = {"lmbda": "lambda"}
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(WrapperSettings)}
