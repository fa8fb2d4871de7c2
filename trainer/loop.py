"""The training loop."""

import gc
import json
import logging
import signal
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from trainer.checkpoints import Checkpoints, Progress
from trainer.config import TrainingConfig, batch_shape, describe, tracking_uri
from trainer.data import Loader
from trainer.distributed import World, join, leave
from trainer.engine import Engine, deepspeed_config
from trainer.export import RECORD, export
from trainer.loss import LanguageModelLoss
from trainer.model import attention_implementation, build_model, model_config
from trainer.objective import role_weights
from trainer.plan import Plan, plan
from trainer.schedule import Schedule
from trainer.sources import ShardSet, mixture, open_sets
from trainer.tracking import History, Tracker
from udfs.config import fingerprint
from udfs.errors import ConfigError
from udfs.tokens import Tokenizer, load_tokenizer

log = logging.getLogger("trainer")

# Automatic garbage collection stops a rank at a moment of its own choosing, and all others wait for it.
_COLLECT_EVERY = 500
MODEL, CHECKPOINTS, HISTORY = "model", "checkpoints", "history.jsonl"


class Stopped(Exception):
    """The training was asked to stop, and its state is saved."""


@dataclass
class _Step:
    """One step, until it is reported."""

    step: int
    loss_sum: torch.Tensor
    weight: float
    line: dict[str, Any]


def train(config: TrainingConfig) -> None:
    """Train, and export the model to ``<output_dir>/model``. Goes on from the newest complete checkpoint.

    Raises:
        ConfigError: the data or a checkpoint do not fit the configuration.
        DataError: the data or a checkpoint are damaged.
        Stopped: SIGTERM came; the state is saved.
    """
    world = join()
    try:
        _train(config, world)
    finally:
        leave()


def _train(config: TrainingConfig, world: World) -> None:
    batch_shape(config, world.size)
    sets = open_sets(config)
    order = mixture(config, sets)
    planned = plan(config, sets, order)
    output = Path(config.output_dir)
    if exported(output) == planned.identity:
        if world.main:
            print(f"{output / MODEL} is this training's result already", flush=True)
        return
    tokenizer = _tokenizer(config, sets)
    torch.set_float32_matmul_precision(config.matmul_precision)
    shape = model_config(config.model, tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id)
    length = next(iter(sets.values())).manifest.sequence_length
    model = build_model(config.model, shape, attention_implementation(world.device, length), config.seed)
    parameters = sum(entry.numel() for entry in model.parameters())
    engine = Engine(config, LanguageModelLoss(model, torch.bfloat16 if config.precision == "amp_bf16" else None), world)
    fresh = Progress(
        manifests={name: entry.manifest.fingerprint for name, entry in sets.items()},
        order=order.fingerprint(),
        model=fingerprint(config.model),
        stage=engine.stage,
        world_size=world.size,
    )
    checkpoints = Checkpoints(output / CHECKPOINTS, config.checkpoints.keep_last, world)
    resumed = checkpoints.resume(engine, fresh, config.data.allow_changed)
    progress = fresh
    if resumed:
        taken = ("step", "position", "tokens", "skipped", "run_id")
        progress = replace(fresh, **{name: getattr(resumed, name) for name in taken})
    if world.main:
        kind = f"{parameters:,} parameters, {planned.steps:,} steps of {planned.tokens_per_step:,.0f} tokens"
        print(f"{kind}; {'from step ' + str(progress.step) if resumed else 'from the start'}", flush=True)
    reporter = Reporter(config, world, planned, progress, sets, parameters)
    loader = Loader(
        order,
        list(sets.values()),
        role_weights(config.objective),
        config.batch.sequences,
        batch_shape(config, world.size)[0],
        world.rank,
        world.size,
    )
    status = "FAILED"
    try:
        progress = _steps(config, world, planned, engine, loader, checkpoints, reporter, progress)
        state = engine.state_dict()
        if state is not None:
            shape = model.config
            shape.architectures = [type(model).__name__]
            record = {"identity": planned.identity, "plan": planned.tree(), "steps": progress.step}
            record |= {"tokens": progress.tokens, "parameters": parameters, "run_id": reporter.run_id}
            export(output / MODEL, state, shape, tokenizer, record)
        world.barrier()
        status = "FINISHED"
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        loader.close()
        reporter.close(status)


def _steps(
    config: TrainingConfig,
    world: World,
    planned: Plan,
    engine: Engine,
    loader: Loader,
    checkpoints: Checkpoints,
    reporter: "Reporter",
    progress: Progress,
) -> Progress:
    settings = config.schedule
    schedule = Schedule(settings.name, config.optimizer.lr, planned.warmup, planned.steps, settings.final_ratio)
    stop = _StopSignal()
    gc.collect()
    gc.freeze()
    gc.disable()
    saved = progress.step
    try:
        while progress.step < planned.steps:
            started = time.perf_counter()
            batches = loader.step(progress.position)
            waited = time.perf_counter() - started
            mine = sum(float(batch.weights.sum(dtype=torch.float64)) for batch in batches)
            counted = world.sum(mine, sum(batch.tokens for batch in batches), float(stop.received))
            weight, tokens, stopping = counted
            lr = schedule(progress.step)
            # A global batch without any learned token changes nothing.
            result = engine.step(batches, max(weight, 1e-9), lr)
            progress = replace(
                progress,
                step=progress.step + 1,
                position=progress.position + config.batch.sequences,
                tokens=progress.tokens + int(tokens),
                skipped=progress.skipped + (not result.applied),
            )
            line = {
                "step": progress.step,
                "learning_rate": lr,
                "grad_norm": result.grad_norm,
                "tokens": progress.tokens,
                "step_tokens": int(tokens),
                "loss_weight": weight,
                "skipped_steps": progress.skipped,
                "data_wait_seconds": waited,
                "step_seconds": time.perf_counter() - started,
            }
            reporter.step(_Step(progress.step, result.loss_sum, weight, line))
            last = progress.step == planned.steps or stopping > 0
            if last or progress.step % config.log_every == 0:
                reporter.flush()
            if last or progress.step % config.checkpoints.every_steps == 0:
                reporter.flush()
                progress = replace(progress, run_id=reporter.run_id)
                checkpoints.save(engine, progress)
                saved = progress.step
            if progress.step % _COLLECT_EVERY == 0:
                gc.collect()
            if stopping > 0:
                raise Stopped(f"stopped by a signal; saved at step {saved}. Start the same command again to go on.")
    finally:
        gc.enable()
        gc.unfreeze()
        stop.restore()
    return progress


class _StopSignal:
    """Remembers SIGTERM. All ranks stop after the same step, the one in which the first of them says so."""

    def __init__(self) -> None:
        self.received = False
        self._previous = signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def restore(self) -> None:
        """Put the earlier handler back."""
        signal.signal(signal.SIGTERM, self._previous)


class Reporter:
    """Steps to the terminal, to ``history.jsonl`` and to MLflow. Every rank calls it; rank 0 writes."""

    def __init__(
        self,
        config: TrainingConfig,
        world: World,
        planned: Plan,
        progress: Progress,
        sets: dict[str, ShardSet],
        parameters: int,
    ) -> None:
        self._world = world
        self._planned = planned
        self._pending: list[_Step] = []
        self._tracker: Tracker | None = None
        self._history: History | None = None
        if not world.main:
            return
        output = Path(config.output_dir)
        self._history = History(output / HISTORY, progress.step)
        tags = {"ipt.verb": "train", "ipt.identity": planned.identity, "mlflow.source.name": "trainer"}
        tags |= {f"version.{name}": version(name) for name in ("torch", "transformers", "deepspeed")}
        tree = config.model_dump(mode="json")
        tree["plan"] = {**planned.tree(), "parameters": parameters, "ranks": world.size}
        self._tracker = Tracker(
            tracking_uri(config),
            config.tracking.experiment,
            config.tracking.run_name or output.name,
            progress.run_id,
            tree,
            tags,
            {name: entry.manifest for name, entry in sets.items()},
        )
        if progress.step:
            self._tracker.tag({"resumed_from_step": str(progress.step)})
        self._tracker.text(describe(config), "training.yaml")
        self._tracker.text(json.dumps(deepspeed_config(config, world.size), indent=1), "deepspeed.json")

    @property
    def run_id(self) -> str:
        """MLflow run, "" on the other ranks and where there is none."""
        return self._tracker.run_id if self._tracker else ""

    def step(self, step: _Step) -> None:
        """Take note of a step; its loss stays on the device until ``flush``."""
        self._pending.append(step)

    def flush(self) -> None:
        """Report the steps since the last time. Every rank must call it at the same step."""
        if not self._pending:
            return
        sums = self._world.sum(*torch.stack([step.loss_sum for step in self._pending]).tolist())
        lines = []
        for step, loss_sum in zip(self._pending, sums, strict=True):
            loss = loss_sum / step.weight if step.weight else 0.0
            lines.append({**step.line, "loss": loss})
        weight = sum(step.weight for step in self._pending)
        self._pending = []
        if self._tracker is None or self._history is None:
            return
        self._history.write(lines)
        last = lines[-1]
        seconds = sum(line["step_seconds"] for line in lines)
        window = {
            "loss": sum(sums) / weight if weight else 0.0,
            "learning_rate": last["learning_rate"],
            "grad_norm": last["grad_norm"],
            "tokens": float(last["tokens"]),
            "tokens_per_second": sum(line["step_tokens"] for line in lines) / seconds,
            "data_wait_seconds": sum(line["data_wait_seconds"] for line in lines),
            "step_seconds": seconds / len(lines),
            "skipped_steps": float(last["skipped_steps"]),
        }
        self._tracker.log(window, last["step"])
        skipped = f"  {last['skipped_steps']} skipped" if last["skipped_steps"] else ""
        print(
            f"step {last['step']}/{self._planned.steps}  loss {window['loss']:.4f}  lr {last['learning_rate']:.2e}  "
            f"grad {last['grad_norm']:.2f}  {window['tokens_per_second']:,.0f} tokens/s{skipped}",
            flush=True,
        )

    def close(self, status: str) -> None:
        """End the run."""
        if self._tracker is not None:
            self._tracker.finish(status)


def exported(output: Path) -> str:
    """Identity of the training whose model is in the output folder; "" where there is none."""
    record = output / MODEL / RECORD
    return json.loads(record.read_text(encoding="utf-8"))["identity"] if record.is_file() else ""


def _tokenizer(config: TrainingConfig, sets: dict[str, ShardSet]) -> Tokenizer:
    manifest = next(iter(sets.values())).manifest
    tokenizer = load_tokenizer(config.tokenizer or manifest.tokenizer)
    if tokenizer.hash != manifest.tokenizer_hash:
        raise ConfigError(
            f"tokenizer: {config.tokenizer or manifest.tokenizer} is not the tokenizer the shards were made with. "
            "Give that one, or shard the data again."
        )
    return tokenizer
