"""What a person sees while a job runs: styled lines on a terminal, plain log lines elsewhere."""

import logging
import time
from collections import Counter

from rich.console import Console
from rich.markup import escape

log = logging.getLogger("ipt")


def is_metered(name: str) -> bool:
    """Whether a count is a meter's, and was shown and logged while the step ran."""
    return name.partition("/")[0] in ("progress", "engine", "estimate")


class Progress:
    """Reports steps and micro-batches as they end."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._started = time.monotonic()

    def step(self, name: str, text: str) -> None:
        """A step begins, or says something on its way."""
        if self.console.is_terminal:
            self.console.print(f"[bold cyan]{name:>18}[/]  {escape(text)}")
        else:
            log.info("%s: %s", name, text)

    def batch(self, step: str, batch_id: int, counts: Counter[str], seconds: float) -> None:
        """A micro-batch is in the tables."""
        numbers = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if "/" not in name)
        self.step(step, f"micro-batch {batch_id}: {numbers or 'nothing'} in {seconds:.1f} s")

    def done(self, step: str, counts: dict[str, float], seconds: float) -> None:
        """A step has ended."""
        shown = (f"{name} {value:,.10g}" for name, value in counts.items() if not is_metered(name))
        numbers = ", ".join(shown) or "nothing new"
        self.step(step, f"done in {seconds:.1f} s: {numbers}")
