"""What a data actor has done in every round, as a line of the training's log."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

# Beginning of the line, after what logging puts before it; what follows is JSON.
MARK = "data actor: "


@dataclass(frozen=True)
class Round:
    """A round of a data actor.

    Attributes:
        update: of the model, after which it was.
        round: its number, from 1.
        seconds: it took.
        p: probability of each training language from now on.
        reward: of each training language.
        development_loss: of each development language, per target token, nats.
        similarity: of each development language's gradient (outside) with each training language's (inside).
    """

    update: int
    round: int
    seconds: float
    p: Mapping[str, float]
    reward: Mapping[str, float]
    development_loss: Mapping[str, float]
    similarity: Mapping[str, Mapping[str, float]]

    def line(self) -> str:
        """The line, with as many digits as mean something."""
        shown = {
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "p": _rounded(self.p, 6),
            "reward": _rounded(self.reward, 6),
            "development_loss": _rounded(self.development_loss, 4),
            "similarity": {language: _rounded(row, 4) for language, row in self.similarity.items()},
        }
        return MARK + json.dumps(shown)


def read_rounds(lines: Iterable[str]) -> list[Round]:
    """The rounds of one training, in order.

    A training that was resumed repeats what came after its last checkpoint: the later round counts, and what the
    earlier run had done beyond it does not. A line that a killed run left unfinished is passed over.

    Args:
        lines: of its log, or of its logs one after the other; others than those of rounds may be among them.
    """
    rounds: list[Round] = []
    for line in lines:
        _, mark, content = line.partition(MARK)
        if not mark:
            continue
        try:
            found = Round(**json.loads(content))
        except (json.JSONDecodeError, TypeError):
            continue
        while rounds and rounds[-1].update >= found.update:
            rounds.pop()
        rounds.append(found)
    return rounds


def _rounded(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
