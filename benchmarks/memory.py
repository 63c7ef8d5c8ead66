"""What of a process is in memory."""

import re
from pathlib import Path


def resident() -> tuple[int, int]:
    """Bytes in memory: of this process alone, and of the files it maps, which the system may drop and read again."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    own, mapped = (1024 * int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.M)[0]) for name in ("RssAnon", "RssFile"))
    return own, mapped
