"""Use of machines: each measured by one of its processes, under a name of its own where there are several."""

import numpy as np
import torch

from tests.trainer.ranks import Part
from trainer.distributed import World
from trainer.tracking.system import SystemMetrics, peak_memory

CPU = torch.device("cpu")


def test_one_machine() -> None:
    found = SystemMetrics(World(0, 1, CPU, None)).gather()
    assert found["system/system_memory_usage_megabytes"] > 100
    assert 0 < found["system/system_memory_usage_percentage"] < 100
    assert peak_memory(CPU) > 50e6


def test_every_machine_has_metrics_of_its_own() -> None:
    """Two machines of two processes: the first process of each measures, and what all of them add up is apart."""
    kept: list[tuple[float, ...]] = []
    names = [set(SystemMetrics(Part(rank, 4, CPU, kept, 2)).gather()) for rank in range(4)]
    assert names[0] == names[3]
    assert {name.split("/")[1] for name in names[0]} == {"0", "1"}
    measured = np.array(kept).reshape(4, 2, -1)[:, :, 1]  # memory, by process and machine
    assert (measured > 0).tolist() == [[True, False], [False, False], [False, True], [False, False]]
