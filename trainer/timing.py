"""Where the time of a step goes. On a GPU events are recorded and read later, so that nothing waits for the device."""

import time
from collections.abc import Iterable
from typing import Any

import torch

PARTS = ("forward", "backward", "optimizer")


class Stopwatch:
    """Marks along one step: the stretch between two marks belongs to the part that the second one names."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self.mark("")

    def mark(self, part: str) -> None:
        """The named part ends here."""
        moment: Any = time.perf_counter()
        if self._cuda:
            moment = torch.cuda.Event(enable_timing=True)
            moment.record()
        self._marks.append((part, moment))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part. On a GPU the step must be over."""
        spent = dict.fromkeys(PARTS, 0.0)
        for (_, start), (part, end) in zip(self._marks, self._marks[1:], strict=False):
            spent[part] += start.elapsed_time(end) / 1000 if self._cuda else end - start
        return spent


def total(steps: Iterable[Stopwatch]) -> dict[str, float]:
    """Seconds of each part, summed over steps."""
    spent = dict.fromkeys(PARTS, 0.0)
    for step in steps:
        for part, seconds in step.seconds().items():
            spent[part] += seconds
    return spent
