"""What a training is mixed from: the share of the trained tokens that each shard set has."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from udfs.config import Config
from udfs.errors import ConfigError

# Of the trained tokens, relative to the shares of the other sets.
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(Config):
    """A shard set's part of a mixture, measured by the tokens that the set has, or by another set's part.

    Give ``repeats`` or ``ratio``, not both.
    """

    # Passes over the set, relative to the passes over the others: 1 for all mixes everything as it is.
    repeats: float | None = Field(None, gt=0)
    # Tokens for each token of the set named by `to`: 1.0 is the published 1:1 with general instructions.
    ratio: float | None = Field(None, gt=0)
    to: str | None = None

    @model_validator(mode="after")
    def _one_measure(self) -> "Part":
        if (self.repeats is None) == (self.ratio is None):
            raise ValueError("give either repeats, or ratio and to")
        if (self.ratio is None) != (self.to is None):
            raise ValueError("ratio needs `to`, the set it is relative to, and `to` needs ratio")
        return self


Mixture = Mapping[str, float | Part]


def measured(mixture: Mixture) -> list[str]:
    """Sets whose tokens decide the shares: those with ``repeats``, where there are several of them."""
    counted = _counted(mixture)
    return counted if len(counted) > 1 else []


def shares(mixture: Mixture, tokens: Mapping[str, int]) -> dict[str, float]:
    """Each set's share of the trained tokens; they sum to 1.

    Args:
        mixture: for each set its share, relative to the others, or for each set its part.
        tokens: tokens of each set of ``measured``, padding left out.

    Raises:
        ConfigError: shares and parts in one mixture, or a ratio to a set that is not in it or has a ratio itself.
    """
    if not any(isinstance(part, Part) for part in mixture.values()):
        weights = {name: float(part) for name, part in mixture.items() if not isinstance(part, Part)}
    else:
        weights = _by_tokens(mixture, tokens)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _by_tokens(mixture: Mixture, tokens: Mapping[str, int]) -> dict[str, float]:
    parts: dict[str, Part] = {}
    for name, part in mixture.items():
        if not isinstance(part, Part):
            raise ConfigError(
                f"sources.{name} is a share ({part:g}), others are parts: one mixture takes either a number for every "
                "set, or repeats or ratio for every set."
            )
        parts[name] = part
    counted = _counted(mixture)
    known = tokens if len(counted) > 1 else dict.fromkeys(counted, 1)
    weights = {name: part.repeats * known[name] for name, part in parts.items() if part.repeats is not None}
    for name, part in parts.items():
        if part.ratio is not None:
            if part.to not in counted:
                raise ConfigError(f"sources.{name}.to is {part.to!r}; it must be a set with repeats: {counted}.")
            weights[name] = part.ratio * weights[part.to]
    return {name: weights[name] for name in mixture}


def _counted(mixture: Mixture) -> list[str]:
    return sorted(name for name, part in mixture.items() if isinstance(part, Part) and part.repeats is not None)
