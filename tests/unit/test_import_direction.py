"""The package's layers: a module imports only from layers above its own, and few know fairseq."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fairseq_knn"

# Top to bottom. Modules and sub-packages of one layer may import each other; "" is the package
# itself, which offers names of other layers lazily and is imported by none of them.
LAYERS = (
    ("version", "errors", "compat", "sox_effects"),
    ("storage",),
    ("datastore",),
    ("index",),
    ("clustering",),
    ("verification",),
    ("retrieval",),
    ("combiners",),
    ("undisturbed",),
    ("sampling",),
    ("subwords",),
    ("imitation",),
    ("models", "criterions", "tasks"),
    ("wrapper_settings",),
    ("hub", "huggingface"),
    ("wrapper", "saver"),
    ("hooks",),
    ("plugin",),
    ("activation",),
    ("",),
    ("corpora", "speech_data"),
    ("recipe",),
    ("cli",),
)
# Tighter than their place in the layers: all that these may import.
ONLY = {
    "corpora": {"corpora", "errors", "storage", "version"},
    "speech_data": {"speech_data", "errors", "storage", "subwords"},
}
# These know no fairseq, so they are used and tested without it. compat.py may import it inside
# functions; everything else here not even there.
FAIRSEQ_FREE = {
    *("", "version", "errors", "compat", "sox_effects", "activation"),
    *("storage", "datastore", "index", "clustering", "verification"),
    *("retrieval", "combiners", "undisturbed", "sampling", "subwords", "imitation"),
    *("wrapper_settings", "huggingface", "wrapper", "saver"),
    *("corpora", "speech_data"),
}
FAIRSEQ_INSIDE_FUNCTIONS = {"compat"}
FAISS_ONLY_UNDER = "index"
# An extra, which even these import inside functions alone.
TRANSFORMERS_ONLY_UNDER = {"huggingface", "cli"}
PATCHES_FAIRSEQ = "hooks"

LAYER_OF = {unit: number for number, layer in enumerate(LAYERS) for unit in layer}
FAIRSEQ = {"fairseq", "fairseq_cli"}


def modules() -> dict[str, Path]:
    """Every module's dotted name and file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def unit_of(module: str) -> str:
    """The entry of LAYERS that a module of ours belongs to."""
    return module.partition(".")[2].partition(".")[0]


def imports(tree: ast.AST, module: str, is_package: bool, names: set[str]) -> Iterator[str]:
    """Every module that *tree* imports, anywhere, with the names of our own modules resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            for alias in node.names:
                # `from package import module` is an import of that module
                deeper = f"{base}.{alias.name}"
                yield deeper if deeper in names else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.args[0].value


def outside_functions(tree: ast.Module) -> ast.Module:
    """*tree* without the bodies of its functions."""

    class Hollow(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

    hollow = Hollow().visit(ast.parse(ast.unparse(tree)))
    assert isinstance(hollow, ast.Module)
    return hollow


def import_faults(source: str, module: str, is_package: bool, names: set[str]) -> list[str]:
    """What in a module's imports is against the rules above."""
    unit = unit_of(module)
    tree = ast.parse(source)
    if unit not in LAYER_OF:
        return [f"{module} has no place in LAYERS"]
    faults = []
    for imported in imports(tree, module, is_package, names):
        top = imported.partition(".")[0]
        if top == "fairseq_knn":
            other = unit_of(imported)
            allowed = LAYER_OF.get(other, len(LAYERS)) <= LAYER_OF[unit]
            if not allowed or other not in ONLY.get(unit, {other}):
                faults.append(f"{module} imports {imported}, which is not above it")
        if top == "faiss" and unit != FAISS_ONLY_UNDER:
            faults.append(f"{module} imports {imported}, which only {FAISS_ONLY_UNDER}/ may")
        if top == "transformers" and unit not in TRANSFORMERS_ONLY_UNDER:
            faults.append(f"{module} imports {imported}, which only {' and '.join(TRANSFORMERS_ONLY_UNDER)} may")
    for imported in imports(outside_functions(tree), module, is_package, names):
        if imported.partition(".")[0] == "transformers":
            faults.append(f"{module} imports {imported} outside a function")
    if unit in FAIRSEQ_FREE:
        searched = outside_functions(tree) if unit in FAIRSEQ_INSIDE_FUNCTIONS else tree
        for imported in imports(searched, module, is_package, names):
            if imported.partition(".")[0] in FAIRSEQ:
                faults.append(f"{module} imports {imported}, but is to know no fairseq")
    return faults


def patches(source: str) -> list[str]:
    """Statements that change attributes or items of something imported from fairseq."""
    tree = ast.parse(source)
    stock = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in FAIRSEQ:
                    stock.add(alias.asname or alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FAIRSEQ:
            stock |= {alias.asname or alias.name for alias in node.names}

    def is_stock(node: ast.expr) -> bool:
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        return isinstance(node, ast.Name) and node.id in stock

    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Attribute, ast.Subscript))
            and isinstance(node.ctx, (ast.Store, ast.Del))
            and is_stock(node)
        ) or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"setattr", "delattr"}
            and is_stock(node.args[0])
        ):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("module", modules())
def test_module_keeps_to_its_layer(module: str) -> None:
    found = modules()
    path = found[module]
    source = path.read_text(encoding="utf-8")
    assert import_faults(source, module, path.name == "__init__.py", set(found)) == []
    if unit_of(module) != PATCHES_FAIRSEQ:
        assert patches(source) == []


def test_fairseq_free_modules_run_without_fairseq() -> None:
    free = [module for module in modules() if unit_of(module) in FAIRSEQ_FREE]
    # The finder also notes the attempts: one inside `try: ... except ImportError:` is one too many.
    script = """
import importlib, json, sys

class NoFairseq:
    attempts = []
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fairseq", "fairseq_cli"):
            self.attempts.append(name)
            raise ModuleNotFoundError(f"{name} is hidden from this test", name=name)

sys.meta_path.insert(0, NoFairseq())
faults = {}
for module in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module)
    except Exception as error:
        faults[module] = f"{type(error).__name__}: {error}"
    if NoFairseq.attempts:
        faults[module] = f"tried to import {', '.join(NoFairseq.attempts)}"
        NoFairseq.attempts.clear()
print(json.dumps(faults))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, json.dumps(free)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {}


# The rules themselves, on small sources: a check that sees nothing would pass for ever.

NAMES = {"fairseq_knn", "fairseq_knn.compat", "fairseq_knn.index", "fairseq_knn.index.search"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fairseq_knn.storage.x", "from fairseq_knn.index import search"),
        ("fairseq_knn.storage.x", "def f():\n    import fairseq_knn.index.search"),
        ("fairseq_knn.storage.x", "from ..index import search"),
        ("fairseq_knn.storage.x", "from fairseq_knn import Datastore"),
        ("fairseq_knn.storage.x", "import_module('fairseq_knn.tasks')"),
        ("fairseq_knn.storage.x", "def f():\n    from fairseq import utils"),
        ("fairseq_knn.storage.x", "def f():\n    importlib.import_module('fairseq.utils')"),
        ("fairseq_knn.compat", "import fairseq"),
        ("fairseq_knn.corpora.x", "from fairseq_knn.index import search"),
        ("fairseq_knn.retrieval.x", "import faiss.contrib.torch_utils"),
        ("fairseq_knn.retrieval.x", "def f():\n    import transformers"),
        ("fairseq_knn.cli.x", "from transformers import GPT2Config"),
        ("fairseq_knn.tasks.x", "from fairseq_knn import hooks"),
        ("fairseq_knn.misc", ""),
    ],
)
def test_fault_is_seen(module: str, source: str) -> None:
    assert import_faults(source, module, False, NAMES | {"fairseq_knn.hooks"}) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fairseq_knn.retrieval.x", "from fairseq_knn.index import search"),
        ("fairseq_knn.index.search", "import faiss\nfrom . import factory"),
        ("fairseq_knn.storage.x", "from fairseq_knn import compat"),
        ("fairseq_knn.compat", "def f():\n    from fairseq import utils"),
        ("fairseq_knn.criterions.x", "from fairseq_knn.models import y\nimport fairseq"),
        ("fairseq_knn.cli.x", "import fairseq_knn\nfrom fairseq_knn.corpora import x"),
        ("fairseq_knn.cli.x", "def f():\n    from transformers import GPT2Config"),
    ],
)
def test_sound_import_is_no_fault(module: str, source: str) -> None:
    assert import_faults(source, module, False, NAMES) == []


@pytest.mark.parametrize(
    "source",
    [
        "from fairseq import utils\nutils.import_user_module = f",
        "import fairseq.tasks as t\nt.TASK_REGISTRY['x'] = T",
        "import fairseq\nfairseq.utils.clip = 1",
        "def f():\n    from fairseq.trainer import Trainer as T\n    setattr(T, 'x', 1)",
        "from fairseq import utils\nutils.x, y = 1, 2",
        "from fairseq import utils\ndel utils.x",
    ],
)
def test_patch_is_seen(source: str) -> None:
    assert patches(source) != []


def test_use_is_no_patch() -> None:
    source = "from fairseq import utils\nclass T:\n    def f(self, x):\n        self.x = utils.y[x]"
    assert patches(source) == []
