"""What stock fairseq-generate printed: hypotheses and references of a split, by sample id.

``S-7``, ``T-7``, ``H-7``, ``D-7`` begin the lines of sample 7: source, reference, hypothesis in subwords and the same
detokenised, as far as the program was told how. Other lines are of no interest.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairseq_knn.errors import ConfigurationError

_LINE = re.compile(r"([TDH])-(\d+)\t([^\n]*)\n?")


@dataclass
class Sample:
    """The best hypothesis of a sample.

    Attributes:
        reference: of the ``T-`` line, if there is one.
        detokenised: of the first ``D-`` line: hypotheses are printed best first.
        raw: of the first ``H-`` line.
    """

    path: Path
    reference: str | None = None
    detokenised: str | None = None
    raw: str | None = None

    @property
    def hypothesis(self) -> str | None:
        return self.raw if self.detokenised is None else self.detokenised


def read_logs(paths: Iterable[Path]) -> dict[int, Sample]:
    """The samples of one run, whose shards may have logs of their own.

    Raises:
        ConfigurationError: a file cannot be read or holds no hypotheses, or a sample was generated twice.
    """
    samples: dict[int, Sample] = {}
    for path in paths:
        _read(path, samples)
        if not any(sample.path == path and sample.hypothesis is not None for sample in samples.values()):
            raise ConfigurationError(
                f"{path} has no lines H-<number> or D-<number>: name a log of fairseq-generate without --quiet"
            )
    return samples


def _read(path: Path, samples: dict[int, Sample]) -> None:
    last = None
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                found = _LINE.fullmatch(line)
                if found is None:
                    continue
                kind, number, rest = found[1], int(found[2]), found[3].removesuffix("\r")
                # The lines of a sample stand together. With T-, it begins there.
                if number not in samples:
                    samples[number] = Sample(path)
                elif number != last or kind == "T":
                    raise ConfigurationError(
                        f"{path} has the sample {number} of which there were lines before (in {samples[number].path}): "
                        "give the logs of one run over one split alone"
                    )
                last = number
                _add(samples[number], kind, rest, path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}): name a log that you may read") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is no UTF-8 text ({error.reason}): name a log of fairseq-generate") from error


def _add(sample: Sample, kind: str, rest: str, path: Path) -> None:
    if kind == "T":
        sample.reference = rest
        return
    score, tab, text = rest.partition("\t")
    if not tab:
        raise ConfigurationError(
            f"{path} has a line {kind}- without a score before its text ({score[:60]!r}): run again"
        )
    if kind == "D" and sample.detokenised is None:
        sample.detokenised = text
    elif kind == "H" and sample.raw is None:
        sample.raw = text
