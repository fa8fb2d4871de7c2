"""Learning-rate schedules, as pure functions of the step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every step of a training.

    Args:
        name: ``cosine``, ``linear`` or ``constant``: the curve after the warm-up.
        peak: learning rate at the end of the warm-up.
        warmup: steps of linear warm-up; step 0 already has ``peak / warmup``, so no step is wasted at 0.
        steps: steps of the whole training.
        final_ratio: learning rate of the last step, as a share of the peak (not used by ``constant``).
    """

    name: str
    peak: float
    warmup: int
    steps: int
    final_ratio: float

    def __call__(self, step: int) -> float:
        """Learning rate of ``step``, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.name == "constant":
            return self.peak
        # 0 at the first step after the warm-up, 1 at the last step.
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - 1 - self.warmup))
        share = 0.5 * (1 + math.cos(math.pi * progress)) if self.name == "cosine" else 1 - progress
        return self.peak * (self.final_ratio + (1 - self.final_ratio) * share)
