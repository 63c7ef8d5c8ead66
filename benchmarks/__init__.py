"""What retrieval costs: speed, memory and recall, measured. ``python -m benchmarks``; see docs/benchmarks.md."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# The quick start's steps, and running a chain of commands, are shared with the examples.
sys.path.append(str(ROOT / "examples"))
