"""How often the student is shown the reference, over the course of a training."""

from dataclasses import dataclass

from fairseq_knn.errors import ConfigurationError

SCHEDULES = ("exponential", "linear", "constant")
# The one setting that each kind of schedule reads.
_READ_BY = {"base": "exponential", "final": "linear", "value": "constant"}
_BASE, _FINAL = 200.0, 0.0


@dataclass(frozen=True)
class BetaSchedule:
    """Probability beta with which a sentence's context is its reference (Lin et al. 2020).

    Args:
        kind: ``exponential``, ``base ** -progress``; ``linear``, from 1 to *final*; or ``constant``.
        base: of ``exponential``, above 1; 200 if it is not given.
        final: of ``linear``, within [0, 1]; 0 if it is not given.
        value: of ``constant``, within [0, 1].

    Raises:
        ConfigurationError: a setting is out of its range, lacking, or not one that this kind reads.
    """

    kind: str
    base: float | None = None
    final: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise ConfigurationError(f"--beta-schedule {self.kind!r} is unknown: choose from {', '.join(SCHEDULES)}")
        for name, kind in _READ_BY.items():
            if getattr(self, name) is not None and self.kind != kind:
                raise ConfigurationError(
                    f"--beta-{name} is a setting of --beta-schedule {kind}, but --beta-schedule is {self.kind}: leave "
                    "it out, or change the schedule"
                )
        if self.base is not None and not 1 < self.base < float("inf"):
            raise ConfigurationError(f"--beta-base is {self.base}: pass a number above 1 (200 was published)")
        if self.kind == "constant" and self.value is None:
            raise ConfigurationError(
                "--beta-schedule constant has no value: pass --beta-value, from 0 (always the student's own "
                "translation) to 1 (always the reference)"
            )
        for name in ("final", "value"):
            setting = getattr(self, name)
            if setting is not None and not 0 <= setting <= 1:
                raise ConfigurationError(f"--beta-{name} is {setting}: pass a probability, from 0 to 1")

    @property
    def needs_horizon(self) -> bool:
        """Whether it has to be known when training ends."""
        return self.kind != "constant"

    def at(self, progress: float) -> float:
        """Beta at some point of the training.

        Args:
            progress: share of the training that is done; below 0 counts as 0, above 1 as 1.
        """
        if self.value is not None:
            return self.value
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "linear":
            final = _FINAL if self.final is None else self.final
            return 1.0 + (final - 1.0) * progress
        base = _BASE if self.base is None else self.base
        return float(base**-progress)
