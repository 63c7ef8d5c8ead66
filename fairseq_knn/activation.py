"""Registration happens when fairseq is loaded: now if it is, else as soon as it is imported."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def activate() -> None:
    """Arrange for :func:`fairseq_knn.plugin.register` to be called; idempotent."""
    if "fairseq" in sys.modules:
        _register()
    elif not any(isinstance(finder, _FairseqFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _FairseqFinder())


def _register() -> None:
    from fairseq_knn.plugin import register

    register()


class _FairseqFinder(MetaPathFinder):
    """Notices the import of fairseq; finds nothing itself."""

    _searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "fairseq" or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec("fairseq")
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec


class _RegisteringLoader(Loader):
    """Loads fairseq as its own loader does, then registers this package."""

    def __init__(self, loader: Loader, finder: MetaPathFinder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _register()
