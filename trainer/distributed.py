"""Processes and devices: who this process is, and small agreements between all of them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Long enough for one rank to write a large checkpoint while the others wait.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    """This process among the others.

    Attributes:
        rank, size: number of this process, and how many there are.
        device: where it computes.
        control: group for agreements between host processes, so that none of them waits for the GPU.
        local: processes of each machine.
    """

    rank: int
    size: int
    device: torch.device
    control: Any
    local: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def node(self) -> int:
        """Number of this process's machine."""
        return self.rank // self.local

    @property
    def local_rank(self) -> int:
        """Number of this process among those of its machine."""
        return self.rank % self.local

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return total.tolist()

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(group=self.control)


def join() -> World:
    """Join the process group that torchrun describes in the environment; alone where it describes none."""
    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ["DS_ACCELERATOR"] = "cpu"
    # The first use of a C++ operation builds it with ninja, which is installed beside this interpreter.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        # It is built against the files of this environment: environments that share the cache of the user would build
        # it anew in turns, most of a minute each time.
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix, "torch_extensions")))
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        os.environ.setdefault(name, value)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=_TIMEOUT)
    else:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    control = dist.new_group(backend="gloo", timeout=_TIMEOUT) if cuda else dist.group.WORLD
    # torchrun calls it the first, DeepSpeed's launcher the second.
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or size
    return World(rank, size, device, control, int(local))


def leave() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def output_to_stderr() -> Iterator[None]:
    """What a library prints to stdout goes to stderr, also from C code and from compilers it starts."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
