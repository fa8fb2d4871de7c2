"""Learning-rate schedules, as pure functions of the step."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate of every step of a training.

    Args:
        name: ``cosine``, ``linear``, ``constant`` or ``wsd``: the curve after the warm-up.
        peak: learning rate at the end of the warm-up.
        warmup: steps of linear warm-up; step 0 already has ``peak / warmup``, so no step is wasted at 0.
        steps: steps of the whole training.
        final_ratio: learning rate of the last step, as a share of the peak (not used by ``constant``).
        decay: steps of the last stretch of ``wsd``; before it the learning rate stays at the peak.
    """

    name: str
    peak: float
    warmup: int
    steps: int
    final_ratio: float
    decay: int = 0

    def __call__(self, step: int) -> float:
        """Learning rate of ``step``, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.name == "constant":
            return self.peak
        if self.name == "wsd":
            # 1 at the last step (Haegele et al. 2024, arXiv 2405.18392, equation 2).
            fallen = max(0, step + 1 - (self.steps - self.decay)) / max(1, self.decay)
            return self.peak * (self.final_ratio + (1 - self.final_ratio) * (1 - math.sqrt(min(1.0, fallen))))
        # 0 at the first step after the warm-up, 1 at the last step.
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - 1 - self.warmup))
        share = 0.5 * (1 + math.cos(math.pi * progress)) if self.name == "cosine" else 1 - progress
        return self.peak * (self.final_ratio + (1 - self.final_ratio) * share)
