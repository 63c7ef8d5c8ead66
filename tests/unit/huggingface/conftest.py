"""Models and datastores that the tests of this folder share."""

from pathlib import Path
from typing import Any

import pytest

from tests import tiny_transformers as tiny


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return tiny.gpt2()


@pytest.fixture(scope="module")
def texts(gpt2: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datastore of the reference's texts."""
    return tiny.store_texts(tmp_path_factory.mktemp("texts") / "store", gpt2, tiny.tokens("datastore_tokens"))


@pytest.fixture(scope="module")
def marian() -> Any:
    return tiny.marian()


@pytest.fixture(scope="module")
def translations(marian: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datastore of random translations."""
    return tiny.store_pairs(tmp_path_factory.mktemp("pairs") / "store", marian, tiny.pairs(100))
