"""What is patched, that it can be taken out again, and that users get sentences instead of tracebacks."""

import sys
from importlib import metadata
from pathlib import Path

import pytest
from fairseq import options, utils
from hydra.core.utils import JobReturn

from fairseq_knn import compat, hooks
from fairseq_knn.errors import UnsupportedVersionError, UserError
from tests import cli, toy


def patched() -> tuple[object, ...]:
    sox = sys.modules.get("torchaudio.sox_effects")
    return sys.excepthook, utils.import_user_module, options.parse_args_and_arch, JobReturn.return_value, sox


def test_installed_once_and_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # restored even if this fails
    hooks.undo()
    stock = patched()
    hooks.install()
    ours = patched()
    assert all(one is not other for one, other in zip(ours, stock, strict=True))
    hooks.install()
    assert patched() == ours
    hooks.undo()
    assert patched() == stock
    hooks.undo()
    assert patched() == stock
    hooks.install()


@pytest.mark.parametrize(
    ("program", "named", "flags"),
    [
        ("fairseq-generate", ("--task", "translation_knn"), ("--knn-datastore-path", "--knn-lambda")),
        ("fairseq-eval-lm", ("--task", "language_modeling_knn"), ("--knn-retomaton",)),
        (
            "fairseq-train",
            ("--task", "translation_multi_dds", "--criterion", "imit_kd", "--arch", "transformer"),
            ("--data-actor", "--kd-topk", "--encoder-embed-dim"),
        ),
    ],
)
def test_help_shows_the_flags_of_what_is_named(
    program: str, named: tuple[str, ...], flags: tuple[str, ...], tmp_path: Path
) -> None:
    run = cli.run(program, "--user-dir", cli.PACKAGE, *named, "--help")
    assert run.status == 0
    for flag in flags:
        assert f" {flag} " in run.output, flag


def test_other_errors_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    sys.excepthook(UserError, UserError("this is wrong, do that"), None)
    assert capsys.readouterr().err == "fairseq_knn: error: this is wrong, do that\n"
    sys.excepthook(ValueError, ValueError("a bug"), None)
    assert "ValueError: a bug" in capsys.readouterr().err


def assert_one_sentence(run: cli.Run, part: str) -> None:
    assert run.status == 1
    assert "Traceback" not in run.log + run.output
    assert len(run.errors) == 1
    assert part in run.errors[0]
    assert run.log.rstrip().splitlines()[-1] == run.errors[0]


def test_training_ends_in_one_sentence(tmp_path: Path) -> None:
    run = cli.run(
        *("fairseq-train", toy.DOMAIN, "--user-dir", cli.PACKAGE, "--task", "translation_knn", "--cpu"),
        *("--arch", "transformer", "--optimizer", "adam", "--save-dir", tmp_path, "--batch-size", 8, "--knn-lambda", 2),
    )
    assert_one_sentence(run, "lambda is 2.0")


HYDRA = """
common: {{cpu: true, user_dir: {package}}}
checkpoint: {{save_dir: {directory}}}
task: {{_name: translation_knn, data: {data}, knn_temperature: 0}}
dataset: {{max_tokens: 500}}
optimization: {{lr: [0.01], max_update: 1}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
criterion: {{_name: cross_entropy}}
model: {{_name: transformer}}
"""


def test_training_with_hydra_ends_in_one_sentence(tmp_path: Path) -> None:
    config = HYDRA.format(package=cli.PACKAGE, directory=tmp_path / "checkpoints", data=toy.DOMAIN)
    (tmp_path / "experiment.yaml").write_text(config)
    run = cli.run(
        *("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "experiment", f"hydra.run.dir={tmp_path}"),
    )
    assert_one_sentence(run, "the temperature is 0")


@pytest.mark.parametrize(
    ("package", "version", "says"),
    [
        ("torch", "2.12.0", "this is torch 2.12.0, fairseq_knn supports 2.6 up to 2.11"),
        ("torch", "2.5.1+cu121", r"this is torch 2.5.1\+cu121"),
        ("fairseq-fixed", "0.12.2", "this is fairseq 0.12.2, fairseq_knn supports fairseq-fixed 0.12.3"),
        ("fairseq-fixed", "1.0.0a0", "this is fairseq 1.0.0a0"),
    ],
)
def test_unsupported_versions(package: str, version: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == package else real(name))
    with pytest.raises(UnsupportedVersionError, match=f"{says}.*pip "):
        compat.check_versions()


def test_official_fairseq_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def only(name: str, installed: dict[str, str]) -> str:
        if name.startswith("fairseq"):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]
        return real(name)

    monkeypatch.setattr(metadata, "version", lambda name: only(name, {"fairseq": "0.12.2"}))
    with pytest.raises(UnsupportedVersionError, match=r"this is fairseq 0\.12\.2"):
        compat.check_versions()
    monkeypatch.setattr(metadata, "version", lambda name: only(name, {"fairseq": "0.12.3.1"}))
    compat.check_versions()
    monkeypatch.setattr(metadata, "version", lambda name: only(name, {}))
    with pytest.raises(UnsupportedVersionError, match="fairseq is not installed"):
        compat.check_versions()


@pytest.mark.parametrize("version", [(3, 10, 2), (3, 13, 0)])
def test_unsupported_python(version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Version(tuple[int, int, int]):
        major, minor = version[:2]

    monkeypatch.setattr(sys, "version_info", Version(version))
    with pytest.raises(UnsupportedVersionError, match=f"this is Python 3.{version[1]}, .* 3.11 and 3.12"):
        compat.check_versions()


def test_an_unsupported_version_ends_a_program_in_one_sentence() -> None:
    program = (
        "from importlib import metadata; real = metadata.version; "
        "metadata.version = lambda name: '2.12.0' if name == 'torch' else real(name); "
        "from fairseq_cli.generate import cli_main; cli_main()"
    )
    run = cli.run("python", "-c", program, toy.DOMAIN, "--user-dir", cli.PACKAGE, "--path", toy.BASE)
    assert_one_sentence(run, "this is torch 2.12.0")
