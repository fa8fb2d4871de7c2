"""What a training will do, computed before it starts. Imports no torch."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.config import Span, TrainingConfig
from trainer.data.order import Order
from trainer.data.sources import ShardSet
from udfs.errors import ConfigError

# A share of a whole number, as 0.07 of 100, is a little more in binary; it is no step more.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Plan:
    """A training in numbers.

    Attributes:
        identity: names the result; a model exported with it need not be trained again.
        steps: optimizer steps.
        warmup: steps of the warm-up.
        decay: steps of the last stretch of a wsd schedule.
        tokens_per_step: expected tokens of a step, padding left out.
        tokens: expected tokens of the whole training.
        repeats: passes over each source.
    """

    identity: str
    steps: int
    warmup: int
    decay: int
    tokens_per_step: float
    tokens: float
    repeats: dict[str, float]

    def tree(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan(config: TrainingConfig, sets: dict[str, ShardSet], order: Order) -> Plan:
    """The plan of a training.

    Raises:
        ConfigError: a source would be repeated more often than allowed, or runs dry before the first step is full; or
            the decay would begin in the warm-up.
    """
    tokens = np.array([entry.manifest.tokens for entry in sets.values()])

    def expected(steps: int) -> float:
        return float((order.repeats(steps * config.batch.sequences) * tokens).sum())

    if config.duration.steps is not None:
        steps = config.duration.steps
    else:
        asked = config.duration.tokens or (config.duration.epochs or 0) * float(tokens.sum())
        steps = _reaching(asked, expected)
        # Rounded up, and one step less is as near as was promised.
        if steps > 1 and expected(steps) > asked * (1 - 1e-9) and _too_often(config, sets, order, steps):
            steps -= 1
    if order.length is not None:
        steps = min(steps, order.length // config.batch.sequences)
        if not steps:
            raise ConfigError(
                f"data.exhausted {config.data.exhausted}: the sources hold {order.length} rows until they run dry, "
                f"less than batch.sequences {config.batch.sequences}. Raise max_repeats, or take smaller steps."
            )
    repeats = dict(zip(sets, order.repeats(steps * config.batch.sequences).tolist(), strict=True))
    for name in _too_often(config, sets, order, steps):
        raise ConfigError(
            f"data.sources.{name}: this training passes over it {repeats[name]:.2f} times, in whole steps "
            f"{repeats[name] * len(sets[name]):,.0f} rows where it has {len(sets[name]):,}; max_repeats allows "
            f"{config.data.sources[name].max_repeats:g}. Train shorter, lower its weight, give it more data, raise "
            "max_repeats, or set data.exhausted to stop or drop."
        )
    per_step = expected(steps) / steps
    warmup, decay = stretches(config, per_step, steps)
    return Plan(
        identity=config.identity({name: entry.manifest.fingerprint for name, entry in sets.items()}),
        steps=steps,
        warmup=warmup,
        decay=decay,
        tokens_per_step=per_step,
        tokens=per_step * steps,
        repeats=repeats,
    )


def _reaching(asked: float, expected: Callable[[int], float]) -> int:
    """Number of steps, at least 1, whose tokens come nearest to those asked for."""
    more = 1
    while expected(more) < asked:
        more *= 2
    # The first that reach it; a source that runs dry changes what a step holds.
    steps = bisect_left(range(more), asked, key=expected)
    return max(1, steps - (expected(steps) - asked > asked - expected(steps - 1)))


def _too_often(config: TrainingConfig, sets: Iterable[str], order: Order, steps: int) -> list[str]:
    """Sources that so many steps pass over more often than is allowed, where that is refused."""
    if config.data.exhausted != "refuse":
        return []
    repeats = order.repeats(steps * config.batch.sequences)
    limits = [config.data.sources[name].max_repeats or math.inf for name in sets]
    return [name for name, found, limit in zip(sets, repeats, limits, strict=True) if found > limit]


def stretches(config: TrainingConfig, tokens_per_step: float, steps: int) -> tuple[int, int]:
    """Steps of the warm-up, and of the decay of a wsd schedule.

    Raises:
        ConfigError: the decay would begin in the warm-up, and the learning rate jump where that ends.
    """
    settings = config.schedule
    warmup = min(steps, count_steps(settings.warmup, tokens_per_step, steps))
    decay = min(steps, count_steps(settings.decay, tokens_per_step, steps)) if settings.decay else 0
    if warmup + decay > steps + 1:  # shares are rounded up
        raise ConfigError(
            f"schedule: {warmup:,} steps of warmup and {decay:,} of decay do not fit one after the other into a "
            f"training of {steps:,}. Shorten one of them, or train longer."
        )
    return warmup, min(decay, steps - warmup)


def count_steps(span: Span, tokens_per_step: float, whole: float) -> int:
    """Steps of a stretch of training.

    Args:
        span: the stretch.
        tokens_per_step: what one step takes.
        whole: the training's steps, of which a share is.
    """
    if span.steps is not None:
        return span.steps
    if span.fraction is not None:
        return math.ceil(span.fraction * whole - _ROUNDING)
    assert span.tokens is not None  # passes are of a whole training
    return round(span.tokens / tokens_per_step)
