"""The one place where stock fairseq (and the interpreter it runs in) is patched.

:func:`install` may be called any number of times; :func:`undo` restores everything.
"""

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any

from hydra.core.utils import JobReturn

from fairseq_knn.compat import make_stock
from fairseq_knn.errors import UserError
from fairseq_knn.sox_effects import apply_effects_tensor
from fairseq_knn.version import __version__

logger = logging.getLogger("fairseq_knn")

_undo: list[Callable[[], None]] = []


def install() -> None:
    """Put every hook in place, once."""
    if not _undo:
        _undo.append(_one_sentence_for_user_errors())
        _undo.append(_one_sentence_under_hydra())
        _undo.append(_one_package_from_two_paths())
        _undo.append(_help_with_every_flag())
        _undo.append(_names_that_numpy_removed())
        _undo.append(_effects_that_torchaudio_removed())
        _undo.append(_checkpoints_of_forks())
        _undo.append(_checkpoints_of_combiners())


def undo() -> None:
    """Take every hook out again, in reverse order."""
    while _undo:
        _undo.pop()()


def _one_sentence_for_user_errors() -> Callable[[], None]:
    """fairseq's programs let exceptions escape; ours end in one sentence and exit status 1."""
    previous = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if (told := _user_error(error)) is not None:
            _say(told)
        else:
            previous(kind, error, traceback)

    sys.excepthook = excepthook

    def restore() -> None:
        sys.excepthook = previous

    return restore


def _user_error(error: BaseException | None) -> UserError | None:
    """The error a user can mend, also where stock has put one of its own in its place (Trainer.load_checkpoint)."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def _one_sentence_under_hydra() -> Callable[[], None]:
    """fairseq-hydra-train catches what its job raises and shows it when the job's result is asked for."""
    stock = JobReturn.return_value

    def return_value(self: JobReturn) -> Any:
        returned = self._return_value
        if isinstance(returned, BaseException) and (told := _user_error(returned)) is not None:
            _say(told)
            raise SystemExit(1)
        return stock.fget(self)

    JobReturn.return_value = property(return_value, stock.fset)

    def restore() -> None:
        JobReturn.return_value = stock

    return restore


def _say(error: UserError) -> None:
    sys.stdout.flush()
    print(f"fairseq_knn: error: {error}", file=sys.stderr)


def _one_package_from_two_paths() -> Callable[[], None]:
    """``--user-dir`` may name the checkout and the installed package in one process.

    Stock imports a user directory by the name of its folder and refuses a second folder of that name. It
    also registers nothing when the package was imported before by ``import fairseq_knn``.
    """
    from fairseq import utils  # loading fairseq installs these hooks, so this module must not load it

    stock = utils.import_user_module
    loaded = Path(__file__).parent

    @functools.wraps(stock)  # carries stock's memo of imported directories
    def import_user_module(args: Any) -> None:
        path = getattr(args, "user_dir", None)
        if path is None or not _is_this_package(Path(os.path.abspath(path))):
            stock(args)
        elif os.path.exists(path) and not os.path.samefile(path, loaded):
            logger.warning(f"--user-dir {path}: fairseq_knn is loaded from {loaded} already; that copy is used")

    utils.import_user_module = import_user_module

    def restore() -> None:
        utils.import_user_module = stock

    return restore


def _help_with_every_flag() -> Callable[[], None]:
    """``--help`` shows the flags of the task, criterion and architecture that are named beside it.

    Stock parses twice, and prints its help in the first pass, in which these have not added theirs.
    """
    from fairseq import options

    stock = options.parse_args_and_arch

    @functools.wraps(stock)
    def parse_args_and_arch(
        parser: Any,
        input_args: Any = None,
        parse_known: bool = False,
        suppress_defaults: bool = False,
        modify_parser: Any = None,
    ) -> Any:
        arguments = list(sys.argv[1:] if input_args is None else input_args)
        if not {"-h", "--help"} & set(arguments):
            return stock(parser, input_args, parse_known, suppress_defaults, modify_parser)
        passes = 0

        def modify(parser: Any) -> None:
            """What stock calls before either pass."""
            nonlocal passes
            passes += 1
            if modify_parser is not None:
                modify_parser(parser)
            if passes == 2:
                parser.print_help()
                raise SystemExit(0)

        named = [word for word in arguments if word not in ("-h", "--help")]
        return stock(parser, named, parse_known=True, modify_parser=modify)

    options.parse_args_and_arch = parse_args_and_arch

    def restore() -> None:
        options.parse_args_and_arch = stock

    return restore


def _names_that_numpy_removed() -> Callable[[], None]:
    """fairseq's main branch cuts text into lines (``--sample-break-mode eos``, fairseq-interactive with a language
    model) with ``np.compat.long``, which numpy 2 does not have any more."""
    import numpy as np

    if hasattr(np, "compat"):
        return lambda: None
    vars(np)["compat"] = SimpleNamespace(long=int)

    def restore() -> None:
        del vars(np)["compat"]

    return restore


def _effects_that_torchaudio_removed() -> Callable[[], None]:
    """fairseq's main branch imports sox from torchaudio to read any audio file, and otherwise says that torchaudio is
    to be installed."""
    name = "torchaudio.sox_effects"
    installed = importlib.util.find_spec("torchaudio")  # of a package it is looked for, but not imported
    folders = [Path(folder) for folder in (installed and installed.submodule_search_locations) or ()]
    if name in sys.modules or not folders or any((folder / "sox_effects").exists() for folder in folders):
        return lambda: None
    module = ModuleType(name)
    module.apply_effects_tensor = apply_effects_tensor  # type: ignore[attr-defined]
    sys.modules[name] = module

    def restore() -> None:
        sys.modules.pop(name, None)

    return restore


def _checkpoints_of_forks() -> Callable[[], None]:
    """Checkpoints name architectures that only a fork has registered, with the parameters of a stock one."""
    from fairseq import checkpoint_utils

    stock = checkpoint_utils._upgrade_state_dict  # the first to look at what was read

    @functools.wraps(stock)
    def upgrade_state_dict(state: Any) -> Any:
        make_stock(state)
        return stock(state)

    checkpoint_utils._upgrade_state_dict = upgrade_state_dict

    def restore() -> None:
        checkpoint_utils._upgrade_state_dict = stock

    return restore


def _checkpoints_of_combiners() -> Callable[[], None]:
    """Where stock saves and resumes, the training of a combiner has more to keep and to restore, and a data actor has.

    Trainings of anything else are left to stock.
    """
    from fairseq import checkpoint_utils

    stock_save, stock_load = checkpoint_utils.save_checkpoint, checkpoint_utils.load_checkpoint

    # Stock keeps the best validation loss as an attribute of the function of this name, which wraps carries.
    @functools.wraps(stock_save)
    def save_checkpoint(cfg: Any, trainer: Any, epoch_itr: Any, val_loss: Any) -> Any:
        training = getattr(trainer.task, "knn_training", None)
        if training is None:
            return stock_save(cfg, trainer, epoch_itr, val_loss)
        training.before_saving(trainer)
        saved = stock_save(cfg, trainer, epoch_itr, val_loss)
        best = val_loss is not None and save_checkpoint.best == val_loss  # type: ignore[attr-defined]
        if best and not cfg.no_save and trainer.should_save_checkpoint_on_current_rank:
            training.save_best(cfg.save_dir)
        return saved

    @functools.wraps(stock_load)
    def load_checkpoint(cfg: Any, trainer: Any, **kwargs: Any) -> Any:
        extra_state, epoch_iterator = stock_load(cfg, trainer, **kwargs)
        if (training := getattr(trainer.task, "knn_training", None)) is not None:
            training.after_loading(trainer, extra_state, cfg)
        # Stock hands a task its state only where it restores the position in the data, too.
        restore = getattr(trainer.task, "set_checkpoint_dict", None)
        kept = (extra_state or {}).get(type(trainer.task).__name__)
        ours = type(trainer.task).__module__.startswith("fairseq_knn.")
        if ours and restore is not None and kept and cfg.reset_dataloader and not cfg.reset_optimizer:
            restore(kept)
        return extra_state, epoch_iterator

    checkpoint_utils.save_checkpoint, checkpoint_utils.load_checkpoint = save_checkpoint, load_checkpoint

    def restore() -> None:
        stock_save.__dict__.update({name: v for name, v in vars(save_checkpoint).items() if name == "best"})
        checkpoint_utils.save_checkpoint, checkpoint_utils.load_checkpoint = stock_save, stock_load

    return restore


def _is_this_package(path: Path) -> bool:
    """Whether *path* is a copy of this package, of this version.

    The bare name counts too: stock looks for a missing directory beside the installed fairseq.

    Raises:
        UserError: it is a copy of another version.
    """
    if path.name != __name__.partition(".")[0]:
        return False
    version = path / "version.py"
    if not version.exists():
        return not path.exists()
    if f'"{__version__}"' not in version.read_text(encoding="utf-8"):
        raise UserError(
            f"--user-dir {path} is another version of fairseq_knn than the one loaded from {Path(__file__).parent} "
            f"({__version__}): use one of them, `fairseq-knn path` prints the installed one"
        )
    return True
