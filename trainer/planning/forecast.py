"""``--plan``: what a training takes on given GPUs, before there is one. Imports no torch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.config import TrainingConfig, batch_shape, deepspeed_section
from trainer.planning.flops import Device, Shape
from trainer.planning.memory import memory
from trainer.planning.plan import Plan, count_steps, stretches
from udfs.config import override, read
from udfs.errors import ConfigError

# The source that stands for data there are no shards of yet.
NO_SHARDS = "planned"
_GB = 1e9


def placed(name: str, overrides: Sequence[str]) -> list[str]:
    """``overrides`` with a place for results and data where none is given: a plan is asked for before there is one."""
    data = override(read(name, "training"), overrides).get("data") or {}
    filled = [f"output_dir={os.curdir}", *overrides]
    if not isinstance(data, Mapping) or data.get("sources"):  # what is no mapping is named when it is checked
        return filled
    return [*filled, f"data.sources.{NO_SHARDS}.path={NO_SHARDS}"]


@dataclass(frozen=True)
class Forecast:
    """A training on given hardware.

    Attributes:
        shape: of the model.
        length: tokens of a row.
        rows, micro_batch, accumulation: rows of a step; of a GPU at once; how many times.
        steps, warmup: of the training.
        tokens: of the whole training.
        ranks, device: GPUs.
        memory: bytes of one GPU, by part.
        mfu: the share of the peak that the time is computed with.
        repeats: passes over each source; empty where there are no shards yet.
    """

    shape: Shape
    length: int
    rows: int
    micro_batch: int
    accumulation: int
    steps: int
    warmup: int
    tokens: float
    ranks: int
    device: Device
    memory: Mapping[str, int]
    mfu: float
    repeats: Mapping[str, float]

    @property
    def tokens_per_second(self) -> float:
        """Of one GPU."""
        return self.mfu * self.device.flops / self.shape.flops_per_token(self.length)

    @property
    def hours(self) -> float:
        """Of the whole training."""
        return self.tokens / (self.tokens_per_second * self.ranks) / 3600

    def check(self) -> None:
        """Whether it fits.

        Raises:
            ConfigError: it does not; the message says which part is the largest.
        """
        needed = sum(self.memory.values())
        if needed > self.device.memory:
            part = max(self.memory, key=lambda name: self.memory[name])
            raise ConfigError(
                f"this training needs {needed / _GB:.1f} GB on each GPU, {self.device.name} has "
                f"{self.device.memory / _GB:.1f} GB; {part} take the most, {self.memory[part] / _GB:.1f} GB. Lower "
                f"batch.micro_batch (now {self.micro_batch}), use activation_checkpointing, a higher ZeRO stage or "
                "more GPUs."
            )

    def text(self) -> str:
        """The forecast for a reader."""
        row = "{:<18}{}".format
        step = self.rows * self.length
        speed = f"{self.tokens_per_second:,.0f} tokens/s per GPU"
        lines = [
            row("parameters", f"{self.shape.parameters:,}, {self.shape.matmul_parameters:,} of them in products"),
            row("step", f"{self.rows:,} rows of {self.length:,} tokens: {step:,} places"),
            row("", f"{self.micro_batch} rows at once, {self.accumulation} times, on each of {self.ranks} GPUs"),
            row("training", f"{self.steps:,} steps, {self.warmup:,} of them warm-up; {self.tokens:,.0f} tokens"),
            *(row("", f"{passes:.2f} passes over {name}") for name, passes in self.repeats.items()),
            row("memory per GPU", f"{sum(self.memory.values()) / _GB:.1f} GB of {self.device.memory / _GB:.1f} GB"),
            *(row(f"  {name}", f"{size / _GB:6.1f} GB") for name, size in self.memory.items()),
            row("work", f"{self.shape.flops_per_token(self.length) / 1e9:.3f} GFLOP per token, attention in full"),
            row("time", f"{self.hours:,.1f} hours at {self.mfu:.0%} MFU: {speed}"),
        ]
        return "\n".join(lines)


def forecast(
    config: TrainingConfig, planned: Plan | None, vocab_size: int | None, ranks: int, device: Device, mfu: float
) -> Forecast:
    """What the training takes.

    Args:
        config: the training; with shard sets, ``data.sequence_length`` is theirs.
        planned: its plan on its shard sets; without one, rows are taken to be full.
        vocab_size: the shard sets', where there are any.
        ranks, device: GPUs.
        mfu: model FLOPs utilisation to compute the time with, above 0 and at most 1.

    Raises:
        ConfigError: the global batch cannot be divided over the GPUs, a number is missing that only shards would give,
            or the decay would begin in the warm-up.
    """
    if not 0 < mfu <= 1:
        raise ConfigError(f"--mfu {mfu:g} must be above 0 and at most 1. 0.4 is usual.")
    micro, accumulation = batch_shape(config, ranks)
    length = config.data.sequence_length
    if length is None:
        raise ConfigError("data.sequence_length: not given, and there are no shards yet that say it. Give the number.")
    if planned is None and config.duration.epochs is not None:
        raise ConfigError("duration.epochs: passes over data are known once there are shards. Give data.sources.")
    shape = Shape.of(config.model, vocab_size)
    full = float(config.batch.sequences * length)
    steps = planned.steps if planned else max(1, count_steps(config.duration, full, 0))
    warmup = planned.warmup if planned else stretches(config, full, steps)[0]
    return Forecast(
        shape=shape,
        length=length,
        rows=config.batch.sequences,
        micro_batch=micro,
        accumulation=accumulation,
        steps=steps,
        warmup=warmup,
        tokens=planned.tokens if planned else steps * full,
        ranks=ranks,
        device=device,
        memory=memory(
            shape,
            deepspeed_section(config),
            config.precision,
            length,
            micro,
            ranks,
            config.activation_checkpointing,
        ),
        mfu=mfu,
        repeats=planned.repeats if planned else {},
    )
