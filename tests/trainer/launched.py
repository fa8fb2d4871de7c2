"""What one rank of ``test_equivalence`` does: trains a little in many ways, and writes what it saw as JSON.

torchrun --nproc-per-node N -m tests.trainer.launched <folder of the sets> <file>
"""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from trainer.checkpoints.checkpoints import Checkpoints, Progress
from trainer.config import CheckpointConfig, TrainingConfig, batch_shape, resolve, zero_stage
from trainer.data.loader import Batch, Loader
from trainer.data.objective import OBJECTIVES, role_weights
from trainer.data.sources import mixture, open_sets
from trainer.distributed import World, join, leave
from trainer.engine import Engine
from trainer.model.architecture import build_model, checkpoint_activations, model_config
from trainer.model.loss import LanguageModelLoss
from trainer.model.noise import EmbeddingNoise
from udfs.shards.format import ROLES

STEPS = 5
MANY_STEPS = 20
STAGES = range(4)
# What is learned: an objective, or the fractional one of ``configuration`` with every example counting alike.
LEARNED = (*OBJECTIVES, "example")
# A training file with roles, and the steps whose losses are written down in ``golden``.
GOLDEN, GOLDEN_STEPS = "tiny-synthesizer", 6
LR = 1e-2
# Stages whose checkpoints of two ranks are continued by one: whole weights, and divided ones.
MOVED = (1, 3)
# Ways to compute the first two steps of the same training, and of one with noise.
VARIANTS = {
    "selective": ["deepspeed=zero2", "activation_checkpointing=selective", "batch.micro_batch=2"],
    "full": ["deepspeed=zero1", "activation_checkpointing=full", "batch.micro_batch=2"],
    "full zero3": ["deepspeed=zero3", "activation_checkpointing=full", "batch.micro_batch=2"],
    "noise micro 4": ["neftune_alpha=5", "batch.micro_batch=4"],
    "noise micro 1": ["neftune_alpha=5", "batch.micro_batch=1"],
}


def configuration(root: Path, *changes: str, base: str = "") -> TrainingConfig:
    """A model of 60 thousand parameters on two sets with roles, learning pairs more than contexts; or the training file
    ``base`` with its own model and objective, in exact arithmetic."""
    places = [f"data.sources.{name}.path={root / name}" for name in ("one", "two")]
    exact = [f"output_dir={root / 'out'}", "precision=fp32", "matmul_precision=highest"]
    if base:
        return resolve(base, [*places, *exact, "data.sequence_length=null"])
    heads = "num_attention_heads: 2, num_key_value_heads: 2"
    model = f"{{hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, {heads}}}"
    return resolve(
        "tiny",
        [
            f"model={model}",
            *places,
            *exact,
            "objective={context: 0.25, instruction: 1.0, response: 1.0}",
            "batch={sequences: 8, micro_batch: 8}",
            *changes,
        ],
    )


def accumulation(learned: str, stage: int) -> int:
    """Micro-batches of a step: 1 and 4 in turns, so that every objective and every stage has both."""
    return (1, 4)[(LEARNED.index(learned) + stage) % 2]


class Run:
    """A training that is driven step by step."""

    def __init__(self, config: TrainingConfig, world: World) -> None:
        sets = open_sets(config)
        shape = model_config(config.model, next(iter(sets.values())).manifest.vocab_size, 1, 2)
        model = build_model(config.model, shape, "sdpa", config.seed)
        if config.activation_checkpointing != "none":
            checkpoint_activations(model, config.activation_checkpointing, zero_stage(config))
        noise = EmbeddingNoise(config.neftune_alpha, config.seed) if config.neftune_alpha else None
        self.module = LanguageModelLoss(model, noise=noise)
        self.world = world
        self.config = config
        micro, _ = batch_shape(config, world.size)
        weights = role_weights(config.objective)
        order = mixture(config, sets)
        self.loader = Loader(
            order,
            list(sets.values()),
            weights,
            config.batch.sequences,
            micro,
            world.rank,
            world.size,
            by_example=config.normalisation == "example",
        )

    def batches(self, step: int) -> tuple[list[Batch], float]:
        """This rank's micro-batches, and the weight of the global batch."""
        batches = self.loader.read(step * self.config.batch.sequences)
        return batches, self.world.sum(sum(float(batch.weights.sum()) for batch in batches))[0]

    def steps(self, engine: Engine, first: int, last: int) -> list[list[float]]:
        """``[loss, gradient norm]`` of each step."""
        seen = []
        for step in range(first, last):
            batches, weight = self.batches(step)
            result = engine.step(batches, weight, LR)
            assert result.applied
            seen.append([result.loss, float(result.grad_norm)])
        return seen


def plain(config: TrainingConfig, steps: int = STEPS) -> list[list[float]]:
    """The same training as a loop of torch and transformers alone: every document in a forward pass of its own, its
    loss from the whole logits, its weights straight from the shard."""
    sets = list(open_sets(config).values())
    shape = model_config(config.model, sets[0].manifest.vocab_size, 1, 2)
    model = build_model(config.model, shape, "sdpa", config.seed).train()
    order = mixture(config, dict(zip(config.data.sources, sets, strict=True)))
    table = config.objective if isinstance(config.objective, dict) else OBJECTIVES[config.objective]
    matrices = [entry for entry in model.parameters() if entry.ndim >= 2]
    vectors = [entry for entry in model.parameters() if entry.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.optimizer.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=LR,
        betas=config.optimizer.betas,
        eps=config.optimizer.eps,
    )
    seen = []
    for step in range(steps):
        first = step * config.batch.sequences
        total, weight = torch.zeros(()), 0.0
        for source, row in zip(*order.locate(np.arange(first, first + config.batch.sequences)), strict=True):
            reader, index = sets[source].locate(int(row))
            roles, start = reader.roles(index), 0
            assert roles is not None
            for _, document in reader.documents(index):
                kinds = [ROLES[role] for role in roles[start : start + len(document)]]
                start += len(document)
                ids = torch.from_numpy(document.astype(np.int64))
                weights = torch.tensor([table.get(kind, 0.0) for kind in kinds[1:]])
                if config.normalisation == "example" and weights.any():
                    weights = weights / weights.sum()
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
                total = total + (F.cross_entropy(logits, ids[1:], reduction="none") * weights).sum()
                weight += float(weights.sum(dtype=torch.float64))
        loss = total / weight
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        seen.append([float(loss), float(norm)])
    return seen


def resumed(config: TrainingConfig, world: World, folder: Path) -> list[list[float]]:
    """Two steps, a checkpoint, and the rest in a new engine."""
    run = Run(config, world)
    return saved_and_resumed(run, Engine(config, run.module, world), folder, (0, 2, STEPS))


def moved(config: TrainingConfig, world: World, folder: Path) -> list[list[float]]:
    """What two ranks saved after two steps, gone on with by one; saved and loaded once more on the way."""
    run = Run(config, world)
    engine = Engine(config, run.module, world)
    progress = _resume(_checkpoints(folder, world), engine, world)
    assert progress.world_size == 2 and progress.step == 2
    return saved_and_resumed(run, engine, folder, (2, 3, STEPS))


def saved_and_resumed(run: Run, engine: Engine, folder: Path, steps: tuple[int, int, int]) -> list[list[float]]:
    """Steps from the first number to the second, a checkpoint, and those to the third in a new engine."""
    first, middle, last = steps
    checkpoints, world = _checkpoints(folder, run.world), run.world
    seen = run.steps(engine, first, middle)
    saved = replace(_here(engine, world), step=middle, position=middle * run.config.batch.sequences)
    checkpoints.save(engine, saved)
    again = Run(run.config, world)
    engine = Engine(run.config, again.module, world)
    progress = _resume(checkpoints, engine, world)
    assert (progress.step, progress.position, progress.world_size) == (saved.step, saved.position, world.size)
    return seen + again.steps(engine, middle, last)


def _checkpoints(folder: Path, world: World) -> Checkpoints:
    return Checkpoints(folder, CheckpointConfig(keep_last=1), world)


def _resume(checkpoints: Checkpoints, engine: Engine, world: World) -> Progress:
    newest = checkpoints.newest(_here(engine, world), allow_changed=False, steps=STEPS)
    assert newest is not None
    return checkpoints.resume(engine, newest)


def _here(engine: Engine, world: World) -> Progress:
    return Progress(manifests={}, stage=engine.stage, world_size=world.size)


def skipped(config: TrainingConfig, world: World, limit: float) -> dict[str, Any]:
    """A step between healthy ones that is skipped: above ``limit``, or not finite where there is none."""
    run = Run(config, world)
    engine = Engine(config, run.module, world)
    run.steps(engine, 0, 1)
    before = engine.state_dict()
    batches, weight = run.batches(1)
    if world.rank == world.size - 1 and limit == math.inf:
        batches[-1] = replace(batches[-1], weights=torch.full_like(batches[-1].weights, float("inf")))
    result = engine.step(batches, weight, LR, limit)
    after = engine.state_dict()
    unchanged = before is None or after is None or all(before[name].equal(after[name]) for name in before)
    following = run.steps(engine, 2, 3)
    return {"applied": result.applied, "unchanged": unchanged, "loss": result.loss, "following": following[0][0]}


def main(root: Path, file: Path) -> None:
    """Every way, in one process group."""
    world = join()
    torch.set_num_threads(1)
    seen: dict[str, Any] = {}
    for name in LEARNED:
        objective = "normalisation=example" if name == "example" else f"objective={name}"
        for stage in STAGES:
            micro = f"batch.micro_batch={8 // world.size // accumulation(name, stage)}"
            config = configuration(root, f"deepspeed=zero{stage}", micro, objective)
            run = Run(config, world)
            seen[f"{name} zero{stage}"] = run.steps(Engine(config, run.module, world), 0, MANY_STEPS)
        if world.size == 1:
            seen[f"plain {name}"] = plain(configuration(root, objective), MANY_STEPS)
    for stage in STAGES:
        config = configuration(root, f"deepspeed=zero{stage}", "batch.micro_batch=2")
        untied = configuration(root, f"deepspeed=zero{stage}", "model.tie_word_embeddings=false")
        run = Run(untied, world)
        seen[f"untied zero{stage}"] = run.steps(Engine(untied, run.module, world), 0, 2)
        seen[f"resumed zero{stage}"] = resumed(config, world, file.with_suffix("") / f"zero{stage}")
        seen[f"poisoned zero{stage}"] = skipped(config, world, math.inf)
        seen[f"spike zero{stage}"] = skipped(config, world, 1.0)
    # In bf16 DeepSpeed takes other optimizer classes.
    for stage in (1, 2):
        config = configuration(root, f"deepspeed=zero{stage}", "batch.micro_batch=2", "precision=bf16")
        seen[f"spike bf16 zero{stage}"] = skipped(config, world, 1.0)
    for name, changes in VARIANTS.items():
        config = configuration(root, *changes)
        run = Run(config, world)
        seen[name] = run.steps(Engine(config, run.module, world), 0, 2)
    if world.size == 1:
        seen["plain"] = plain(configuration(root))
        config = configuration(root, base=GOLDEN)
        run = Run(config, world)
        losses = run.steps(Engine(config, run.module, world), 0, GOLDEN_STEPS)
        seen["golden"] = [loss for loss, _ in losses]
        for stage in MOVED:
            config = configuration(root, f"deepspeed=zero{stage}")
            seen[f"moved zero{stage}"] = moved(config, world, file.with_name("2") / f"zero{stage}")
    if world.main:
        file.write_text(json.dumps(seen), encoding="utf-8")
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
