"""Code of the user's that cannot be imported."""

from pathlib import Path

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.recipe.user_code import load


@pytest.mark.parametrize("last", ['raise ValueError("boom")', "import sys; sys.exit(3)"])
def test_code_that_ends_while_it_is_imported(last: str, tmp_path: Path) -> None:
    code = tmp_path / "code_that_ends"
    code.mkdir()
    (code / "__init__.py").write_text(f"import fairseq_knn\n{last}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        load(str(code))
