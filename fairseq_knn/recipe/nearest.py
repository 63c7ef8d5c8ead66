"""What somebody may have meant by a name that nobody knows."""

import difflib
from collections.abc import Iterable

_FEW = 16


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean X?``, or what is known where nothing resembles the name and that is not too much to read."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    if not names:
        return "there are none"
    return f"known are {', '.join(names)}" if len(names) <= _FEW else "choose one of those it has"
