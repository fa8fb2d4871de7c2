"""What stands in for a launched job where nothing but its arithmetic is tested."""

import torch

from trainer.data.loader import Batch
from trainer.distributed import World
from trainer.model.loss import LanguageModelLoss


class Alone:
    """The model without the engine of a training."""

    def __init__(self, module: LanguageModelLoss) -> None:
        self.module = module

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``trainer.engine.Engine.evaluate``."""
        return self.module(batch)


class Part(World):
    """One of several ranks; ``control`` is a list that keeps what it would have added to the others'."""

    def sum(self, *values: float) -> list[float]:
        """Its own part."""
        self.control.append(values)
        return list(values)
