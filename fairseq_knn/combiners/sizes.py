"""What a combiner is made of that nobody has trained yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairseq_knn.errors import ConfigurationError


@dataclass(frozen=True)
class CombinerSizes:
    """Sizes of what a combiner will see, and its own options.

    Args:
        k: how many neighbours are retrieved, K.
        query_dim: dimension of queries and keys, d.
        probability_dim: size of the vocabulary, V.
        options: what else was asked for, by name; every combiner has its own and its own defaults for what is not here.
        called: what the user calls the options, for messages, if not by name.
    """

    k: int
    query_dim: int
    probability_dim: int
    options: Mapping[str, Any] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)

    def arguments(self, kind: str, **known: str) -> dict[str, Any]:
        """The options as a combiner's arguments.

        Args:
            kind: name of the combiner.
            known: the options it has, each with the name of the argument it becomes.

        Raises:
            ConfigurationError: there is an option the combiner does not have.
        """
        for option in self.options:
            if option not in known:
                names = [self.called.get(name, name) for name in known if not self.called or name in self.called]
                told = self.called.get(option, option)
                raise ConfigurationError(
                    f"{told} is {self.options[option]!r}, but the {kind} combiner has "
                    f"{'only ' + ', '.join(names) if names else 'no options'}: leave {told} out, or choose a combiner "
                    "that has it"
                )
        return {known[option]: value for option, value in self.options.items()}
