"""What is installed is what the repository says, and says once."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import fairseq_knn

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fairseq_knn"

# How a distribution is imported where the name differs.
IMPORTED_AS = {
    "fairseq-fixed": {"fairseq", "fairseq_cli"},
    "faiss-gpu": {"faiss"},
    "faiss-cpu": {"faiss"},
    "hydra-core": {"hydra"},
    "pyyaml": {"yaml"},
}
# Absolute paths of the machine something was made on; assembled, so that this file holds none.
MACHINE_PATH = re.compile(rb"(?<![\w.$)}>-])/(?:" + b"|".join([b"work", b"root"]) + b")/")


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def name_of(requirement: str) -> str:
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None, requirement
    return match[0]


def repository_files() -> list[Path]:
    """What is committed or could be; the whole folder where this is no git checkout."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
    )
    if listing.returncode == 0:
        files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        tops = [path for path in ROOT.iterdir() if path.name == ".ci" or path.name[0] != "."]
        files = [path for top in tops for path in [top, *top.rglob("*")]]
        files = [path for path in files if path.suffix != ".pyc"]
    return [path for path in files if path.is_file()]


def test_version_is_written_once() -> None:
    settings = project()
    attribute = settings["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert settings["project"]["dynamic"] == ["version"]
    assert attribute == "fairseq_knn.version.__version__"
    assert fairseq_knn.__version__ == importlib.metadata.version("fairseq-knn")
    # a plain literal: setuptools reads it without importing the package, so without torch
    (assignment,) = [
        node
        for node in ast.parse((PACKAGE / "version.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
    ]
    assert ast.literal_eval(assignment.value) == fairseq_knn.__version__


def test_extras() -> None:
    assert {"demo", "dev", "speech", "transformers"} <= set(project()["project"]["optional-dependencies"])


def test_console_script() -> None:
    assert project()["project"]["scripts"] == {"fairseq-knn": "fairseq_knn.cli.main:main"}
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="fairseq-knn")
    assert callable(script.load())


def test_path_names_a_directory_that_fairseq_imports_under_our_name() -> None:
    # fairseq imports a user directory by the name of its folder
    command = [sys.executable, "-m", "fairseq_knn.cli.main", "path"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == f"{Path(fairseq_knn.__file__).parent}\n"
    assert Path(printed.strip()).name == "fairseq_knn"


def test_every_folder_with_python_is_a_package() -> None:
    # setuptools leaves out a folder without __init__.py, and nobody notices in a checkout
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").exists()) == []


def test_package_holds_python_and_declared_data_only() -> None:
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    data = sorted(str(path.relative_to(PACKAGE)) for path in files if path.suffix != ".py")
    assert project()["tool"]["setuptools"]["package-data"] == {"fairseq_knn": data}


def test_imported_distributions_are_declared() -> None:
    settings = project()["project"]
    requirements = [*settings["dependencies"]]
    for extra, lines in settings["optional-dependencies"].items():
        if extra != "dev":
            requirements += lines
    declared: set[str] = {"fairseq_knn"}
    for name in map(name_of, requirements):
        declared |= IMPORTED_AS.get(name, {name.replace("-", "_")})
    imported: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            imported |= {name.partition(".")[0]: path for name in names}
    undeclared = set(imported) - declared - set(sys.stdlib_module_names)
    assert {name: str(imported[name]) for name in sorted(undeclared)} == {}


def test_error_texts_name_the_bounds_that_are_installed() -> None:
    text = (PACKAGE / "compat.py").read_text(encoding="utf-8")
    for requirement in project()["project"]["dependencies"]:
        if name_of(requirement) in {"fairseq-fixed", "torch", "torchaudio"}:
            assert f"'{requirement}'" in text


def test_no_file_names_a_path_of_the_machine_it_was_made_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in repository_files()
        for match in [MACHINE_PATH.search(path.read_bytes())]
        if match
    ]
    assert found == []
