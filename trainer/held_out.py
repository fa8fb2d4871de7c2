"""Held-out loss while training, by source and role, computed by all ranks together."""

import numpy as np
import torch

from trainer.config import TrainingConfig
from trainer.data.loader import Counts, read_rows
from trainer.data.objective import Groups, role_weights
from trainer.data.sources import ShardSet
from trainer.distributed import World
from trainer.engine import Engine


class HeldOut:
    """Some rows of each held-out set, the same ones every time.

    Args:
        config: the training.
        sets: the held-out sets by name.
        world: this process.
    """

    def __init__(self, config: TrainingConfig, sets: dict[str, ShardSet], world: World) -> None:
        self._sets = list(sets.values())
        self._groups = Groups(tuple(sets))
        self._weights = role_weights(config.objective)
        self._by_example = config.normalisation == "example"
        self._world = world
        places = [
            (number, row)
            for number, entry in enumerate(self._sets)
            for row in np.unique(
                np.linspace(0, len(entry) - 1, min(len(entry), config.held_out.rows), dtype=int)
            ).tolist()
        ]
        size = config.batch.micro_batch
        self._batches = [places[start : start + size] for start in range(0, len(places), size)]

    def __call__(self, engine: Engine) -> dict[str, float]:
        """``held_out/loss``, weighted as in training; ``held_out/loss/source/...`` and ``.../role/...``; in nats."""
        count = self._groups.PER_SOURCE * len(self._sets)
        sums = torch.zeros(count + 1, dtype=torch.float32, device=self._world.device)
        learned, weight = np.zeros(count), 0.0
        for start in range(0, len(self._batches), self._world.size):
            # Under ZeRO-3 all ranks must go through the model alike: one without a batch left repeats the last one.
            number = start + self._world.rank
            mine = number < len(self._batches)
            places = self._batches[min(number, len(self._batches) - 1)]
            batch = read_rows(self._sets, places, self._weights, self._by_example)
            loss, groups = engine.evaluate(batch)
            if mine:
                sums += torch.cat([loss[None], groups])
                learned += Counts.of([batch]).learned
                weight += float(batch.weights.sum(dtype=torch.float64))
        total = np.array(self._world.sum(*sums.tolist(), *learned.tolist(), weight))
        losses = self._groups.means(total[1 : count + 1], total[count + 1 : -1])
        if total[-1]:
            losses["loss"] = total[0] / total[-1]
        return {f"held_out/{name}": float(value) for name, value in losses.items()}
