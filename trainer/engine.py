"""The DeepSpeed engine: set up from the configuration, and one exact optimizer step.

DeepSpeed averages gradients over ranks. Our loss is a sum, so it is scaled by (ranks / weight of the global batch)
before the backward pass; the gradient is then that of sum(weight x cross-entropy) / sum(weight) over the whole global
batch, whatever the number of ranks and micro-batches.

A step whose loss is not finite or above a limit gets a gradient that is not finite, by a factor in its last backward
pass: from there on it is skipped as any other step with such a gradient, on all ranks, at every ZeRO stage, and without
waiting for the device.
"""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.config import TrainingConfig, batch_shape, deepspeed_section
from trainer.data.loader import Batch
from trainer.distributed import World, output_to_stderr
from trainer.model.loss import LanguageModelLoss
from trainer.timing import Stopwatch


@dataclass(frozen=True)
class StepResult:
    """Outcome of one optimizer step.

    Attributes:
        loss: sum of weight x cross-entropy over the global batch, divided by its weight.
        grad_norm: 2-norm of the global gradient before clipping; inf or nan where it was not finite. A tensor on the
            device where reading it would wait for the optimizer.
        applied: whether the weights changed; a step with a gradient that is not finite is skipped on all ranks.
        groups: [groups] float32 on the device: this rank's cross-entropy of each group (``LanguageModelLoss``).
        times: forward, backward, optimizer.
    """

    loss: float
    grad_norm: torch.Tensor | float
    applied: bool
    groups: torch.Tensor
    times: Stopwatch


class Engine:
    """A model in DeepSpeed.

    Args:
        config: the training.
        module: model with loss, on the CPU in fp32.
        world: this process.
    """

    def __init__(self, config: TrainingConfig, module: LanguageModelLoss, world: World) -> None:
        with output_to_stderr():
            import deepspeed

            quiet_deepspeed()
        self._clipping = config.optimizer.gradient_clipping
        self._world = world
        section = deepspeed_config(config, world.size)
        self.stage = int(section.get("zero_optimization", {}).get("stage", 0))
        # Without ZeRO in fp32 DeepSpeed gives no gradient norm and steps on gradients that are not finite.
        self._own_clipping = self.stage == 0
        module.to(world.device)
        if config.precision == "bf16":
            module.to(torch.bfloat16)
        self.optimizer = _optimizer(config, module)
        with output_to_stderr():
            self.engine, *_ = deepspeed.initialize(
                model=module, optimizer=self.optimizer, config=section, dist_init_required=False
            )
            if self.stage == 3:
                # The loss uses the head's weight outside the head's own forward pass.
                head = module.model.get_output_embeddings().weight
                deepspeed.zero.register_external_parameter(module, head)
        if self.stage == 0 and world.size == 1:
            # There is nothing to add up, and DeepSpeed would still copy all gradients together and back.
            self.engine.enable_backward_allreduce = False
        self.engine.train()

    def step(self, batches: Sequence[Batch], weight: float, lr: float, limit: float = math.inf) -> StepResult:
        """One optimizer step over this rank's micro-batches.

        Args:
            batches: as many as the engine accumulates.
            weight: sum of the loss weights over the global batch.
            lr: learning rate.
            limit: a step with a loss above it is skipped.
        """
        times = Stopwatch(self._world.device)
        total = torch.zeros((), dtype=torch.float32, device=self._world.device)
        groups = torch.zeros(batches[0].group_count, dtype=torch.float32, device=self._world.device)
        scale: torch.Tensor | float = self._world.size / weight
        for batch in batches:
            loss, parts = self.engine(batch.to(self._world.device))
            total += loss.detach()
            groups += parts
            times.mark("forward")
            last = batch is batches[-1]
            if last:
                if self._world.size > 1:
                    torch.distributed.all_reduce(total)
                total /= weight
                scale = torch.where(torch.isfinite(total) & (total <= limit), scale, math.nan)
                loss_read = _Reading(total)
            self.engine.backward(loss * scale, scale_wrt_gas=False)
            if not last:
                self.engine.step()  # only counts the micro-batch
            times.mark("backward")
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm, applied = self._apply()
        times.mark("optimizer")
        return StepResult(loss_read.value(), norm, applied, groups, times)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of this rank's batch as ``LanguageModelLoss`` gives it; nothing is learned. Every rank must call it."""
        self.engine.eval()
        loss, groups = self.engine(batch.to(self._world.device))
        self.engine.train()
        return loss, groups

    def _apply(self) -> tuple[torch.Tensor | float, bool]:
        """Clip and step. Gives the gradient's norm and whether the weights changed."""
        if self._own_clipping:
            norm = float(torch.nn.utils.clip_grad_norm_(self.engine.module.parameters(), self._clipping))
            applied = math.isfinite(norm)
            if not applied:
                self.engine.module.zero_grad(set_to_none=True)  # AdamW leaves weights without gradients alone
            self.engine.step()
            return norm, applied
        self.engine.step()
        return self.engine.get_global_grad_norm(), bool(self.engine.was_step_applied())

    def state_dict(self) -> dict[str, torch.Tensor] | None:
        """All weights of the language model on the CPU, on rank 0; None on the others. Every rank must call it."""
        import deepspeed

        state = {}
        for name, parameter in self.engine.module.model.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                if self._world.main:
                    state[name] = parameter.detach().to("cpu", copy=True).contiguous()
        return state if self._world.main else None


class _Reading:
    """A value on its way from the device: it is waited for, but not for what is computed after it."""

    def __init__(self, scalar: torch.Tensor) -> None:
        self._ready: torch.cuda.Event | None = None
        self._host = scalar
        if scalar.device.type == "cuda":
            self._host = torch.empty((), dtype=scalar.dtype, pin_memory=True)
            self._host.copy_(scalar, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()

    def value(self) -> float:
        """The number."""
        if self._ready is not None:
            self._ready.synchronize()
        return float(self._host)


def quiet_deepspeed() -> None:
    """Only warnings, and none of the lines per step."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")


def deepspeed_config(config: TrainingConfig, world_size: int) -> dict[str, Any]:
    """The complete DeepSpeed configuration."""
    micro, accumulation = batch_shape(config, world_size)
    section = deepspeed_section(config)
    stage = section.get("zero_optimization", {}).get("stage", 0)
    return {
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
        # bf16 gradients summed in bf16 lose the small ones; DeepSpeed's default is the weights' dtype.
        "data_types": {"grad_accum_dtype": "fp32"},
        **section,
        "train_batch_size": config.batch.sequences,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": config.optimizer.gradient_clipping if stage else 0.0,
        "bf16": {"enabled": config.precision == "bf16"},
    }


def _optimizer(config: TrainingConfig, module: torch.nn.Module) -> torch.optim.AdamW:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    settings = config.optimizer
    groups = [
        {"params": [entry for entry in parameters if entry.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [entry for entry in parameters if entry.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
