"""The training loop."""

import gc
import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from trainer.checkpoints.checkpoints import Checkpoints, Progress
from trainer.checkpoints.export import export
from trainer.checkpoints.layout import CHECKPOINTS, MODEL, SAVE, identity_of
from trainer.config import TrainingConfig, batch_shape, zero_stage
from trainer.data.loader import Counts, Loader
from trainer.data.objective import role_weights
from trainer.data.sources import ShardSet, damaged, mixed, mixture, open_held_out, open_sets, open_tokenizer
from trainer.distributed import World, join, leave
from trainer.engine import Engine
from trainer.guard import NOT_FINITE, SPIKE, Diverged, Guard
from trainer.held_out import HeldOut
from trainer.lock import locked
from trainer.model.architecture import build_model, checkpoint_activations, compile_layers, model_config
from trainer.model.attention import attention_implementation
from trainer.model.loss import LanguageModelLoss
from trainer.model.noise import EmbeddingNoise
from trainer.planning.flops import Shape
from trainer.planning.plan import Plan, plan
from trainer.questions import Questions
from trainer.schedule import Schedule
from trainer.tracking.reporting import Reporter, Step
from udfs.config import fingerprint
from udfs.errors import ConfigError, DataError
from udfs.tokens import Tokenizer

log = logging.getLogger("trainer")

# Computes something about the model at work. Every rank must call it.
Measure = Callable[[Engine], dict[str, float]]

# Automatic garbage collection stops a rank at a moment of its own choosing, and all others wait for it.
_COLLECT_EVERY = 500


class Stopped(Exception):
    """The training was asked to stop, and its state is saved."""


def train(config: TrainingConfig) -> None:
    """Train, and export the model to ``<output_dir>/model``. Goes on from the newest complete checkpoint.

    Raises:
        ConfigError: the data or a checkpoint do not fit the configuration.
        DataError: the data or a checkpoint are damaged.
        Diverged: too many steps were skipped.
        EnvironmentProblem: another trainer works in the output folder.
        Stopped: SIGTERM came; the state is saved.
    """
    world = join()
    try:
        with locked(Path(config.output_dir), world):
            _train(config, world)
    finally:
        leave()


def _train(config: TrainingConfig, world: World) -> None:
    batch_shape(config, world.size)
    sets = open_sets(config)
    held_out = open_held_out(config, sets)
    order = mixture(config, sets)
    planned = plan(config, sets, order)
    output = Path(config.output_dir)
    if identity_of(output / MODEL) == planned.identity:
        if world.main:
            print(f"{output / MODEL} is this training's result already", flush=True)
        return
    fresh = Progress(
        manifests={name: entry.manifest.fingerprint for name, entry in sets.items()},
        order=order.fingerprint(),
        model=fingerprint(config.model),
        stage=zero_stage(config),
        world_size=world.size,
        identity=planned.identity,
    )
    checkpoints = Checkpoints(output / CHECKPOINTS, config.checkpoints, world, planned.identity)
    newest = checkpoints.newest(fresh, config.data.allow_changed, planned.steps)
    _verify(sets, world)
    tokenizer = open_tokenizer(config, sets)
    length = next(iter(sets.values())).manifest.sequence_length
    measures: list[Measure] = [HeldOut(config, held_out, world)] if held_out else []
    if config.held_out.questions is not None:
        measures.append(Questions(config, tokenizer, length, world))
    torch.set_float32_matmul_precision(config.matmul_precision)
    shape = model_config(config.model, tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id)
    attention = attention_implementation(world.device, length, half=config.precision != "fp32")
    model = build_model(config.model, shape, attention, config.seed)
    parameters = sum(entry.numel() for entry in model.parameters())
    if config.activation_checkpointing != "none":
        checkpoint_activations(model, config.activation_checkpointing, zero_stage(config))
    if config.compile:
        compile_layers(model)
    noise = EmbeddingNoise(config.neftune_alpha, config.seed) if config.neftune_alpha else None
    autocast = torch.bfloat16 if config.precision == "amp_bf16" else None
    engine = Engine(config, LanguageModelLoss(model, autocast, noise), world)
    resumed = checkpoints.resume(engine, newest) if newest else None
    progress = fresh
    if resumed:
        now = ("manifests", "order", "model", "stage", "world_size", "identity")
        progress = replace(resumed, **{name: getattr(fresh, name) for name in now})
    if world.main:
        kind = f"{parameters:,} parameters, {planned.steps:,} steps of {planned.tokens_per_step:,.0f} tokens"
        print(f"{kind}; {'from step ' + str(progress.step) if resumed else 'from the start'}", flush=True)
    loader = Loader(
        order,
        list(sets.values()),
        role_weights(config.objective),
        config.batch.sequences,
        batch_shape(config, world.size)[0],
        world.rank,
        world.size,
        by_example=config.normalisation == "example",
    )
    reporter = Reporter(config, world, planned, progress, sets, parameters, _sizes(config, tokenizer))
    status, together = "FAILED", False
    try:
        progress = _steps(config, world, planned, engine, loader, checkpoints, reporter, measures, progress)
        state = engine.state_dict()
        if state is not None:
            shape = model.config
            shape.architectures = [type(model).__name__]
            record = {"identity": planned.identity, "plan": planned.tree(), "steps": progress.step}
            record |= {"tokens": progress.tokens, "parameters": parameters, "run_id": reporter.run_id}
            record["mixture"] = mixed(config, sets, progress.source_tokens or {})
            reporter.result(record)
            export(output / MODEL, state, shape, tokenizer, record)
        world.barrier()
        status = "FINISHED"
    except (Stopped, KeyboardInterrupt) as error:
        status, together = "KILLED", isinstance(error, Stopped)
        raise
    except Diverged:
        together = True
        raise
    finally:
        loader.close()
        checkpoints.close()
        reporter.close(status)
        if together:
            # All ranks raise these alike, and a launcher ends rank 0 as soon as another rank is gone.
            world.barrier()


def _steps(
    config: TrainingConfig,
    world: World,
    planned: Plan,
    engine: Engine,
    loader: Loader,
    checkpoints: Checkpoints,
    reporter: Reporter,
    measures: Sequence[Measure],
    progress: Progress,
) -> Progress:
    settings = config.schedule
    schedule = Schedule(
        settings.name, config.optimizer.lr, planned.warmup, planned.steps, settings.final_ratio, planned.decay
    )
    guard = Guard(config.guard, progress.losses, progress.skipped_lately)
    stop = _StopSignal()
    gc.collect()
    gc.freeze()
    gc.disable()
    saved = progress.step
    wanted = Path(config.output_dir) / SAVE
    try:
        while progress.step < planned.steps:
            started = time.perf_counter()
            batches = loader.step(progress.position)
            waited = time.perf_counter() - started
            mine = sum(float(batch.weights.sum(dtype=torch.float64)) for batch in batches)
            asked = world.main and wanted.exists()
            counted = world.sum(mine, sum(batch.tokens for batch in batches), float(stop.received), float(asked))
            weight, tokens, stopping, saving = counted
            lr = schedule(progress.step)
            # A global batch without any learned token changes nothing: neither momentum nor decay moves a weight.
            limit = guard.limit if weight else -math.inf
            result = engine.step(batches, max(weight, 1e-9), lr, limit)
            first = progress.position
            reason = ""
            if result.applied:
                guard.applied(result.loss)
            elif weight:
                reason = SPIKE if math.isfinite(result.loss) and result.loss > limit else NOT_FINITE
            progress = replace(
                progress,
                step=progress.step + 1,
                position=first + config.batch.sequences,
                tokens=progress.tokens + int(tokens),
                skipped=progress.skipped + bool(reason),
            )
            line = {
                "step": progress.step,
                "position": first,
                "learning_rate": lr,
                "tokens": progress.tokens,
                "step_tokens": int(tokens),
                "loss_weight": weight,
                "skipped": reason,
                "skipped_steps": progress.skipped,
                "data_wait_seconds": waited,
                "step_seconds": time.perf_counter() - started,
            }
            reporter.step(Step(line, result, Counts.of(batches)))
            if reason:
                if world.main:
                    log.warning(
                        "step %d skipped (%s): loss %.4g, limit %.4g, gradient %.4g; its rows begin at position %d",
                        *(progress.step, reason, result.loss, limit, float(result.grad_norm), first),
                    )
                try:
                    guard.skipped(progress.step, reason, result.loss, first)
                except Diverged:
                    reporter.flush()
                    raise
            last = progress.step == planned.steps or stopping > 0
            due = progress.step == planned.steps or progress.step % config.held_out.every_steps == 0
            measured: dict[str, float] = {}
            for measure in measures if due and not stopping else ():
                measured |= measure(engine)
            if last or measured or progress.step % config.log_every == 0:
                reporter.flush(measured)
            if last or saving > 0 or progress.step % config.checkpoints.every_steps == 0:
                reporter.flush()
                losses, skipped_lately = guard.state()
                progress = replace(progress, losses=losses, skipped_lately=skipped_lately, **reporter.counts)
                reporter.checkpoint(checkpoints.save(engine, progress), progress)
                saved = progress.step
                if asked:
                    wanted.unlink(missing_ok=True)
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


def _verify(sets: dict[str, ShardSet], world: World) -> None:
    """Hash every shard in a folder; the ranks of a node share the work, and all of them say what one has found."""
    found = damaged(sets, world.local_rank, world.local)
    everywhere: list[list[str]] = [found]
    if world.size > 1:
        everywhere = [[] for _ in range(world.size)]
        torch.distributed.all_gather_object(everywhere, found, group=world.control)
    if any(everywhere):
        raise DataError("\n".join(sorted({problem for problems in everywhere for problem in problems})))


def _sizes(config: TrainingConfig, tokenizer: Tokenizer) -> Shape | None:
    """The model in numbers; None for an architecture whose arithmetic is not known."""
    try:
        return Shape.of(config.model, tokenizer.vocab_size)
    except ConfigError:
        return None
