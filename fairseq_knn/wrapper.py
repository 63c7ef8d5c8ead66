"""Neighbours for a model that is loaded already, in a notebook or a program of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError, DatastoreError
from fairseq_knn.models.knn_decoder import KnnDecoder, knn_decoder, restore, take_fingerprint
from fairseq_knn.retrieval import Retriever
from fairseq_knn.tasks.knn_combiner import make_combiner
from fairseq_knn.tasks.knn_config import KnnConfig, check_config
from fairseq_knn.tasks.knn_session import KnnSession

_SETTINGS = (
    *("k", "lambda", "temperature", "combiner_path"),
    *("backend", "device", "nprobe", "load", "skip_threshold", "key", "allow_mismatch"),
)


class KNNWrapper:
    """Lets a fairseq model consult datastores, and takes them away again.

    ::

        hub = TransformerModel.from_pretrained(".", "BASE.pt", "DATA")
        wrapper = KNNWrapper("STORE", k=8, lmbda=0.7, temperature=10)
        wrapper.break_into(hub)
        hub.translate("...")
        wrapper.break_out()

    The model is changed in place: its decoder gets a subclass of its own class, no parameter moves.

    Args:
        datastore: one or several, opened or as paths; several are searched as one (in an ensemble every model
            searches those it built).
        k: number of neighbours.
        lmbda: weight of the neighbours against the model, 0 to 1.
        temperature: squared distances are divided by it.
        options: other settings of :class:`~fairseq_knn.tasks.knn_config.KnnConfig` without their ``knn_``:
            ``combiner_path``, ``backend``, ``device``, ``nprobe``, ``load``, ``skip_threshold``, ``key``,
            ``allow_mismatch``.

    Raises:
        ConfigurationError: a setting is out of its range or unknown.
        DatastoreError: there is no datastore, or it is unfinished or damaged.
    """

    def __init__(
        self,
        datastore: Datastore | Path | str | Sequence[Datastore | Path | str],
        k: int = 8,
        lmbda: float = 0.7,
        temperature: float = 10.0,
        **options: Any,
    ) -> None:
        several = [datastore] if isinstance(datastore, (Datastore, Path, str)) else list(datastore)
        self._datastores = [store if isinstance(store, Datastore) else Datastore.load(store) for store in several]
        if not self._datastores:
            raise ConfigurationError("there is no datastore: pass one, or several")
        settings = {"k": k, "lambda": lmbda, "temperature": temperature, **options}
        config = KnnConfig()
        for name, value in settings.items():
            if name not in _SETTINGS:
                raise ConfigurationError(f"{name!r} is no setting of retrieval: choose among {', '.join(_SETTINGS)}")
            setattr(config, f"knn_{name}", value)
        check_config(config)
        self._session = KnnSession(config, self._datastores)
        make_combiner(self._session.config, config.knn_combiner)  # what is wrong with it is said here and not later
        self._models: list[nn.Module] = []

    def break_into(self, model: Any) -> Any:
        """Let *model* consult the datastores.

        Args:
            model: a fairseq model with a decoder, or what ``from_pretrained`` and ``torch.hub.load`` return.

        Returns:
            the same model.

        Raises:
            ConfigurationError: this wrapper is in a model already, the model consults datastores already, or it has no
                decoder that can be augmented.
            DatastoreError: a datastore was built by another model or with another dictionary.
            SearchIndexError: an index is needed and missing, stale or damaged.
        """
        if self._models:
            raise ConfigurationError("this wrapper is in a model already: break_out() first, or make another one")
        models = list(model.models) if isinstance(getattr(model, "models", None), nn.ModuleList) else [model]
        if any(isinstance(getattr(each, "decoder", None), KnnDecoder) for each in models):
            raise ConfigurationError(
                "the model consults datastores already: break_out() of the wrapper that is in it first (one wrapper "
                "takes several datastores)"
            )
        session = KnnSession(self._session.given, self._datastores)
        try:
            for each in models:
                session.adopt(each)
                self._models.append(each)
                take_fingerprint(each)
            session.prepare(knn_decoder(models[0]).dictionary.symbols)
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
        self._session = session
        return model

    def break_out(self) -> None:
        """Make the model what it was before."""
        while self._models:
            restore(self._models.pop())

    @property
    def statistics(self) -> dict[str, Any]:
        """What retrieval has cost so far, as in the closing line of fairseq-generate."""
        return self._session.statistics()

    @property
    def retrievers(self) -> list[Retriever]:
        """What searches, one for each model (none if lambda is 0); its statistics tell how often and how fast."""
        return self._session.retrievers
