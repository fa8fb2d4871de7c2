"""Which steps are skipped, and when there are too many of them. Imports no torch.

A step whose loss or gradient is not finite, or whose loss lies far above the last ones, changes no weight: one damaged
batch can undo days. Skipped steps count as steps: the data move on, and so does the schedule.
"""

import math
from collections import deque
from collections.abc import Iterable

from pydantic import Field

from udfs.config import Config
from udfs.errors import InstructionPretrainingError

SPIKE, NOT_FINITE = "spike", "not finite"
# A window of equal losses has no spread; rounding must not look like a spike in it.
_LEAST_SPREAD = 1e-3


class GuardConfig(Config):
    """When a step is skipped and when a training that skips too many is stopped."""

    # A loss this many standard deviations above the mean of the window is a spike; null skips only what is not finite.
    # 6 and 128 are OLMo's.
    sigmas: float | None = Field(default=6.0, gt=0)
    # Applied steps that are looked back upon; before there are as many, nothing is a spike.
    window: int = Field(default=128, ge=8)
    # More skipped steps than this among the last `window` steps stop the training.
    max_skipped: int = Field(default=10, ge=0)


class Diverged(InstructionPretrainingError, ArithmeticError):
    """The training skipped too many steps."""


class Guard:
    """The recent losses. Every rank has the same, so that all decide alike.

    Args:
        config: limits.
        losses: losses of the last applied steps, oldest first.
        skipped: numbers of the last skipped steps.
    """

    def __init__(self, config: GuardConfig, losses: Iterable[float] = (), skipped: Iterable[int] = ()) -> None:
        self._config = config
        self._losses = deque(losses, config.window)
        self._skipped = deque(skipped, config.max_skipped + 1)

    @property
    def limit(self) -> float:
        """Greatest loss, in nats per unit of weight, that is no spike; infinite while too few are known."""
        config, losses = self._config, self._losses
        if config.sigmas is None or len(losses) < config.window:
            return math.inf
        mean = math.fsum(losses) / len(losses)
        variance = math.fsum((loss - mean) ** 2 for loss in losses) / (len(losses) - 1)
        return mean + config.sigmas * max(math.sqrt(variance), _LEAST_SPREAD * abs(mean))

    def applied(self, loss: float) -> None:
        """Take note of a step that changed the weights."""
        self._losses.append(loss)

    def skipped(self, step: int, reason: str, loss: float, position: int) -> None:
        """Take note of a skipped step.

        Args:
            step: its number, from 1.
            reason: ``SPIKE`` or ``NOT_FINITE``.
            loss: of the step.
            position: first row of its global batch.

        Raises:
            Diverged: too many of the last steps were skipped.
        """
        self._skipped.append(step)
        if len(self._skipped) <= self._config.max_skipped or step - self._skipped[0] >= self._config.window:
            return
        raise Diverged(
            f"{len(self._skipped)} of the last {step - self._skipped[0] + 1} steps were skipped, guard.max_skipped "
            f"allows {self._config.max_skipped} in {self._config.window}. The last is step {step} ({reason}, loss "
            f"{loss:.4g}), whose rows begin at position {position}. Look at `skipped` in history.jsonl; lower "
            "optimizer.lr, mend the data, or raise the limit, and start again from the newest checkpoint."
        )

    def state(self) -> tuple[list[float], list[int]]:
        """What the constructor takes to go on from here."""
        return list(self._losses), list(self._skipped)
