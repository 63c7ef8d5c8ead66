"""numpy 2 removed names that fairseq's main branch still uses in a few places."""

import ast
from pathlib import Path

import fairseq

REMOVED = {"bool", "compat", "complex", "float", "in1d", "int", "long", "object", "product", "str", "unicode_", "Inf", "NaN"}

# Functions of stock fairseq that fail under numpy 2. None of them is on the way of translating, scoring or training
# translation models: masks for self-supervised speech models, and the CRF layer of non-autoregressive models. A new
# name here means that a stock module has to be looked at.
KNOWN = {
    # np.compat.long: hooks.py gives it back.
    ("data/language_pair_dataset.py", "LanguagePairDataset"),
    ("data/token_block_dataset.py", "TokenBlockDataset"),
    ("data/data_utils.py", "compute_mask_indices"),
    ("data/data_utils.py", "compute_mask_indices_v3"),
    ("modules/dynamic_crf_layer.py", "DynamicCRF"),
}
OUTSIDE = {"examples", "benchmark", "model_parallel"}


def uses_of_removed_names(root: Path) -> set[tuple[str, str]]:
    """(file, top-level definition) of every use of a name that numpy 2 lacks."""
    found = set()
    for path in root.rglob("*.py"):
        file = path.relative_to(root)
        if file.parts[0] in OUTSIDE:
            continue
        for definition in ast.parse(path.read_text(encoding="utf-8")).body:
            for node in ast.walk(definition):
                if (
                    isinstance(node, ast.Attribute)
                    and isinstance(node.value, ast.Name)
                    and node.value.id == "np"
                    and node.attr in REMOVED
                ):
                    found.add((file.as_posix(), getattr(definition, "name", "module")))
    return found


def test_only_the_known_places_break_under_numpy_2() -> None:
    assert uses_of_removed_names(Path(fairseq.__file__).parent) == KNOWN
