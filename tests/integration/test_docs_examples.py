"""What the documentation shows is run as it stands there."""

import re
import shutil
from pathlib import Path

from tests import cli, toy

COMBINER = (cli.ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Adding a combiner")[2]
OVERVIEW = (cli.ROOT / "docs" / "combiners.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_combiner_of_the_architecture_page(datastore: Path, tmp_path: Path) -> None:
    """In a copy of the package, with the lines of the page and no others."""
    package = shutil.copytree(cli.PACKAGE, tmp_path / "fairseq_knn", ignore=shutil.ignore_patterns("__pycache__"))
    combiner, registration = blocks(COMBINER, "python")
    (package / "combiners" / "scalar.py").write_text(combiner, encoding="utf-8")
    import_line, entry = registration.splitlines()
    init = package / "combiners" / "__init__.py"
    text = init.read_text(encoding="utf-8")
    text = text.replace("\nCOMBINERS:", f"{import_line}\n\nCOMBINERS:", 1)
    text = text.replace('    "vanilla": VanillaCombiner,\n', f'    "vanilla": VanillaCombiner,\n{entry}\n', 1)
    init.write_text(text, encoding="utf-8")

    def run(program: str, *arguments: object) -> cli.Run:
        common = (toy.DOMAIN, "--user-dir", package, "--task", "translation_knn", "--num-workers", 0, "--cpu")
        done = cli.run(program, *common, *arguments, environment={"PYTHONPATH": str(tmp_path)}, directory=tmp_path)
        assert done.status == 0, done.log[-2000:]
        return done

    trained = run(
        "fairseq-train",
        *("--knn-mode", "train", "--knn-combiner", "scalar", "--knn-temperature", 5, "--knn-k", 4),
        *("--knn-datastore-path", datastore, "--arch", toy.ARCHITECTURE, "--finetune-from-model", toy.BASE),
        *("--train-subset", "valid", "--valid-subset", "valid", "--save-dir", tmp_path / "save"),
        *("--knn-cache", tmp_path / "cache", "--optimizer", "adam", "--lr", 0.1, "--batch-size", 32),
        *("--max-update", 3, "--log-format", "simple"),
    )
    weights = [float(weight) for weight in re.findall(r"knn_lambda ([\d.]+)", trained.log + trained.output)]
    assert weights
    assert weights[-1] != 0.5  # where it started
    for place in ("checkpoint_best.pt", "combiner_best"):
        assert (tmp_path / "save" / place).exists()
    checkpoint = tmp_path / "save" / "checkpoint_best.pt"
    translated = run("fairseq-generate", "--path", checkpoint, "--gen-subset", "test", "--beam", 4)
    assert translated.bleu > 60  # the base: 36.2
    assert '"knn_k": 4' in translated.closing_line


def test_the_commands_of_the_combiners_page(tmp_path: Path) -> None:
    """The first block of commands, from building a datastore to a translation."""
    commands = blocks(OVERVIEW, "bash")[0]
    assert "TOY=tests/data/toy" in commands
    script = tmp_path / "commands.sh"
    script.write_text(
        f"set -e\nPATH={cli.scripts()}:$PATH\n{commands.replace('TOY=tests/data/toy', f'TOY={toy.TOY}')}",
        encoding="utf-8",
    )
    environment = {"PYTHONPATH": str(cli.ROOT), "CUDA_VISIBLE_DEVICES": ""}
    run = cli.run("bash", script, environment=environment, directory=tmp_path)
    assert run.status == 0, run.log[-2000:]
    assert re.findall(r"BLEU4? = ([\d.]+)", run.output)[-1] > "65"  # the base: 36.2
