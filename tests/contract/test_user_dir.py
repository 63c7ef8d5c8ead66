"""How fairseq finds the plug-in: by any path, in any order of imports, in any process."""

import multiprocessing
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fairseq import utils
from fairseq.tasks import TASK_REGISTRY

import fairseq_knn
from fairseq_knn import hooks
from fairseq_knn.errors import UserError
from fairseq_knn.tasks.translation_knn import TranslationKnnConfig, TranslationKnnTask
from tests import cli


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package once more, as an installation beside the checkout has it."""
    path = tmp_path / "site-packages" / "fairseq_knn"
    shutil.copytree(cli.PACKAGE, path, ignore=shutil.ignore_patterns("__pycache__"))
    return path


@pytest.fixture
def without_hooks() -> Iterator[None]:
    hooks.undo()
    yield
    hooks.install()


def test_two_paths_in_one_process(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (cli.PACKAGE, copy, cli.PACKAGE, f"{copy}/"):
        utils.import_user_module(Namespace(user_dir=str(path)))
    assert TASK_REGISTRY["translation_knn"] is TranslationKnnTask
    assert f"fairseq_knn is loaded from {cli.PACKAGE} already" in caplog.text
    assert Path(fairseq_knn.__file__).parent == cli.PACKAGE


@pytest.mark.usefixtures("without_hooks")
def test_stock_refuses_a_second_path(copy: Path) -> None:
    with pytest.raises(ImportError, match="not globally unique"):
        utils.import_user_module(Namespace(user_dir=str(copy)))


def test_another_version_is_refused(copy: Path) -> None:
    (copy / "version.py").write_text('__version__ = "0.0.1"\n')
    with pytest.raises(UserError, match="another version of fairseq_knn"):
        utils.import_user_module(Namespace(user_dir=str(copy)))


def test_other_user_directories_are_left_to_stock(tmp_path: Path) -> None:
    (tmp_path / "another_plugin").mkdir()
    (tmp_path / "another_plugin" / "__init__.py").write_text("LOADED = True\n")
    utils.import_user_module(Namespace(user_dir=str(tmp_path / "another_plugin")))
    assert sys.modules["another_plugin"].LOADED
    with pytest.raises(FileNotFoundError):
        utils.import_user_module(Namespace(user_dir=str(tmp_path / "nowhere")))


IMPORTED_FIRST = """
import sys
import fairseq_knn
assert not {"fairseq", "torch", "faiss", "numpy"} & sys.modules.keys(), "importing the package must be cheap"
import fairseq.tasks
assert "translation_knn" in fairseq.tasks.TASK_REGISTRY
assert "transformer_wmt19_de_en" in __import__("fairseq.models").models.ARCH_MODEL_REGISTRY
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("fairseq_knn")]
sys.argv = ["fairseq-generate", "data", "--user-dir", fairseq_knn.__path__[0], "--task", "translation_knn"]
from fairseq import options
print(options.parse_args_and_arch(options.get_generation_parser()).knn_mode)
"""


def test_imported_before_fairseq() -> None:
    run = cli.run("python", "-c", IMPORTED_FIRST)
    assert run.status == 0, run.log
    assert run.output == "inference\n"


def registered(config: TranslationKnnConfig, user_dir: str) -> tuple[bool, bool, Any]:
    """What a spawned worker knows: before and after it imports the user directory as stock does."""
    before = "translation_knn" in TASK_REGISTRY
    utils.import_user_module(Namespace(user_dir=user_dir))
    return before, "translation_multi_simple_epoch_knn" in TASK_REGISTRY, config.knn_k


def test_spawned_workers_know_the_tasks() -> None:
    """A worker that is not forked unpickles objects of ours before anything else is imported."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(registered, (TranslationKnnConfig(knn_k=5), str(cli.PACKAGE))) == (True, True, 5)
