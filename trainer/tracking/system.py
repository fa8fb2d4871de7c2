"""Use of the machines, under the names that MLflow's own page for it shows."""

import resource
from importlib.util import find_spec
from typing import Any

import torch

from trainer.distributed import World

_MEGABYTE = 1e6


def peak_memory(device: torch.device) -> int:
    """Most bytes that were taken at once: allocated on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class SystemMetrics:
    """Processor, memory and GPUs of every machine of a training; one process of each measures."""

    def __init__(self, world: World) -> None:
        import psutil

        self._world = world
        self._nodes = world.size // world.local
        self._measures = world.local_rank == 0
        self._cards = min(world.local, torch.cuda.device_count()) if world.device.type == "cuda" else 0
        # torch asks the driver for it through this package.
        self._utilization = self._cards > 0 and find_spec("pynvml") is not None
        self._system: Any = psutil
        self._system.cpu_percent()  # the first call opens the window

    def gather(self) -> dict[str, float]:
        """The metrics of all machines since the last call. Every rank must call it, and all machines must be alike."""
        mine = self._measure()
        names = list(mine)
        values = [0.0] * (len(names) * self._nodes)
        if self._measures:
            node = self._world.node
            values[node * len(names) : (node + 1) * len(names)] = mine.values()
        total = self._world.sum(*values)
        found = {}
        for node in range(self._nodes):
            place = f"system/{node}" if self._nodes > 1 else "system"
            for index, name in enumerate(names):
                found[f"{place}/{name}"] = total[node * len(names) + index]
        return found

    def _measure(self) -> dict[str, float]:
        memory = self._system.virtual_memory()
        network = self._system.net_io_counters()
        found = {
            "cpu_utilization_percentage": self._system.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "network_receive_megabytes": network.bytes_recv / _MEGABYTE,
            "network_transmit_megabytes": network.bytes_sent / _MEGABYTE,
        }
        for card in range(self._cards):
            free, whole = torch.cuda.mem_get_info(card)
            found[f"gpu_{card}_memory_usage_megabytes"] = (whole - free) / _MEGABYTE
            found[f"gpu_{card}_memory_usage_percentage"] = 100 * (whole - free) / whole
            if self._utilization:
                found[f"gpu_{card}_utilization_percentage"] = torch.cuda.utilization(card)
        return found
