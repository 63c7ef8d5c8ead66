"""Neighbours for a model that is loaded already, in a notebook or a program of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import ConfigurationError
from fairseq_knn.huggingface.fitting import is_huggingface
from fairseq_knn.huggingface.session import HuggingFaceKnn
from fairseq_knn.retrieval import Retriever
from fairseq_knn.wrapper_settings import KNN_SETTINGS, RETOMATON_SETTINGS, WrapperSettings


class _Session(Protocol):
    """A model with datastores, whatever framework it is of."""

    def break_out(self) -> None: ...

    def statistics(self) -> dict[str, Any]: ...

    @property
    def retrievers(self) -> list[Retriever]: ...


class KNNWrapper:
    """Lets a model of fairseq or of Hugging Face's transformers consult datastores, and takes them away again.

    ::

        hub = TransformerModel.from_pretrained(".", "BASE.pt", "DATA")
        wrapper = KNNWrapper("STORE", k=8, lmbda=0.7, temperature=10)
        wrapper.break_into(hub)
        hub.translate("...")
        wrapper.break_out()

        model = AutoModelForCausalLM.from_pretrained("gpt2")
        KNNWrapper("STORE").break_into(model)  # k=1024, lmbda=0.25, temperature=1
        model.generate(...)
        model(input_ids, labels=labels).loss

    The model is changed in place, no parameter moves. A model of transformers that is given labels returns
    log-probabilities of model and neighbours as logits, at every position whose label is not -100, and their loss;
    without labels, as in ``generate()``, at the last position.

    Args:
        datastore: one or several, opened or as paths; several are searched as one (in an ensemble every model
            searches those it built).
        k: number of neighbours; by default 8, of a language model 1024.
        lmbda: weight of the neighbours against the model, 0 to 1; by default 0.7, of a language model 0.25.
        temperature: squared distances are divided by it; by default 10, of a language model 1.
        options: others of :class:`~fairseq_knn.wrapper_settings.WrapperSettings`: ``combiner_path``, ``backend``,
            ``device``, ``gpus``, ``nprobe``, ``load``, ``recompute_distances``, ``skip_threshold``, ``key``,
            ``allow_mismatch``.

    Raises:
        ConfigurationError: a setting is out of its range or unknown.
        DatastoreError: there is no datastore, or it is unfinished or damaged.
    """

    _names: ClassVar[tuple[str, ...]] = KNN_SETTINGS
    _retomaton: ClassVar[bool] = False

    def __init__(
        self,
        datastore: Datastore | Path | str | Sequence[Datastore | Path | str],
        k: int | None = None,
        lmbda: float | None = None,
        temperature: float | None = None,
        **options: Any,
    ) -> None:
        several = [datastore] if isinstance(datastore, (Datastore, Path, str)) else list(datastore)
        self._datastores = [store if isinstance(store, Datastore) else Datastore.load(store) for store in several]
        if not self._datastores:
            raise ConfigurationError("there is no datastore: pass one, or several")
        given = {"k": k, "lmbda": lmbda, "temperature": temperature, **options}
        self._settings = WrapperSettings.of(self._names, given, retomaton=self._retomaton)
        self._session: _Session | None = None
        self._figures: dict[str, Any] = {}

    def break_into(self, model: Any) -> Any:
        """Let *model* consult the datastores.

        Args:
            model: a fairseq model with a decoder, or what ``from_pretrained`` and ``torch.hub.load`` return; or a
                causal or encoder-decoder model of transformers.

        Returns:
            the same model.

        Raises:
            ConfigurationError: this wrapper is in a model already, the model consults datastores already, or it is of
                neither framework.
            DatastoreError: a datastore was built by another model or with another vocabulary.
            SearchIndexError: an index is needed and missing, stale or damaged.
        """
        if self._session is not None:
            raise ConfigurationError("this wrapper is in a model already: break_out() first, or make another one")
        if is_huggingface(model):
            self._session = HuggingFaceKnn(model, self._datastores, self._settings)
        else:
            # fairseq takes seconds to load, and a model of transformers needs none of it.
            from fairseq_knn.hub.knn import HubKnn

            self._session = HubKnn(model, self._datastores, self._settings)
        return model

    def break_out(self) -> None:
        """Make the model what it was before."""
        if self._session is not None:
            self._session.break_out()
            self._figures = self._session.statistics()
            self._session = None

    @property
    def statistics(self) -> dict[str, Any]:
        """What retrieval has cost so far, as in the closing line of fairseq-generate; also after :meth:`break_out`."""
        return self._figures if self._session is None else self._session.statistics()

    @property
    def retrievers(self) -> list[Retriever]:
        """What searches, one for each model (none if lambda is 0); its statistics tell how often and how fast."""
        return [] if self._session is None else self._session.retrievers


class RetomatonWrapper(KNNWrapper):
    """As :class:`KNNWrapper`, but neighbours are followed from token to token, and searched for where few are left.

    ::

        wrapper = RetomatonWrapper("STORE", min_knns=1, max_knns=1024, clusters="NAME")
        wrapper.break_into(model)
        model.generate(..., num_beams=5)
        wrapper.statistics["knn_foss"]  # fraction of saved searches

    Pointers follow the hypotheses of beam search.

    Args:
        datastore, k, lmbda, temperature: see :class:`KNNWrapper`.
        options: those of :class:`KNNWrapper`, and ``min_knns`` (1; any value from *max_knns* on searches at every
            step), ``max_knns`` (1024, or k if that is more; of a translation model k), ``clusters`` (name of clusters
            made by ``fairseq-knn cluster``; by default none are used), ``no_pointer`` (search at every step, follow
            nothing), ``reference_counting`` (count as the authors' program does).
    """

    _names = RETOMATON_SETTINGS
    _retomaton = True
