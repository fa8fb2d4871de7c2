"""Our trainer's steps and those of a loop of PyTorch and transformers alone, in turns, on the same batches."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The first steps are slower: kernels are prepared, memory is taken, MLflow makes its tables.
WARM_UP = 3
STEPS = 12
# Ways to write the plain loop's loss, and whether it is fused with the head.
KINDS = {"cross_entropy": False, "linear_cross_entropy": True}


class Moment(tuple[float, float]):
    """Seconds on the clock, and of processor time in all threads of this process."""

    def __sub__(self, other: "Moment") -> "Moment":
        return Moment((self[0] - other[0], self[1] - other[1]))


def now() -> Moment:
    """This moment."""
    return Moment((time.perf_counter(), time.process_time()))


class PlainLoop:
    """The training as one would write it in an afternoon: accumulate, clip, step.

    Args:
        config: the training; every token of its objective weighs 1.
        length: tokens of a row.
        fused: compute logits in pieces, by torch's ``linear_cross_entropy``.
    """

    def __init__(self, config: Any, length: int, fused: bool) -> None:
        import torch

        from trainer.model.architecture import build_model, model_config
        from trainer.model.attention import attention_implementation

        half = config.precision == "amp_bf16"
        attention = attention_implementation(torch.device("cpu"), length, half)
        shape = model_config(config.model, config.model.vocab_size, 1, 2)
        self.model = build_model(config.model, shape, attention, config.seed).train()
        parameters = list(self.model.parameters())
        groups = [
            {"params": [entry for entry in parameters if entry.ndim >= 2]},
            {"params": [entry for entry in parameters if entry.ndim < 2], "weight_decay": 0.0},
        ]
        settings = config.optimizer
        rest = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, fused=True, **rest)
        self.clipping = settings.gradient_clipping
        self.half = half
        self.fused = fused
        self.losses: list[float] = []

    def step(self, batches: Sequence[Any]) -> None:
        """One optimizer step over micro-batches of ``trainer.data.loader.Batch``."""
        import torch
        from torch.nn import functional as F

        from trainer.model.attention import document_mask

        dtype = torch.bfloat16 if self.half else torch.float32
        learned = sum(len(batch.positions) for batch in batches)
        total = torch.zeros(())
        for batch in batches:
            labels = torch.full((batch.input_ids.numel(),), -100)
            labels[batch.positions] = batch.targets
            inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "use_cache": False}
            inputs["attention_mask"] = document_mask(batch.documents, dtype)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                if self.fused:
                    hidden = self.model.model(**inputs).last_hidden_state.flatten(0, 1).to(dtype)
                else:
                    logits = self.model(**inputs).logits.flatten(0, 1)
            if self.fused:
                head = self.model.get_output_embeddings().weight.to(dtype)
                # By default it takes pieces so small that the benchmark would take twice as long.
                options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=1024, chunking_method=None)
                loss = F.linear_cross_entropy(hidden, head, labels, reduction="sum", options=options).float()
            else:
                loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            loss = loss / learned
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clipping)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(float(total))


def turns(config: Any) -> tuple[list[Moment], dict[str, list[Moment]]]:
    """A training of ours in which each plain loop takes a step before each step of ours, and one after the last.

    Returns:
        What each step of ours took, and each step of each plain loop.

    Raises:
        SystemExit: they do not have the same losses.
    """
    import trainer.loop
    from trainer.data.loader import Batch, Loader
    from trainer.tracking.tracking import read_history

    loops: dict[str, PlainLoop] = {}
    ours: list[Moment] = []
    plain: dict[str, list[Moment]] = {kind: [] for kind in KINDS}

    class Turns(Loader):
        """The trainer's loader, in which the plain loops have their turns."""

        began: Moment | None = None

        def step(self, position: int) -> list[Batch]:
            asked = now()
            batches = super().step(position)
            # Fetching belongs to the step that follows.
            fetched = now() - asked
            if self.began is not None:
                ours.append(asked - self.began)
            for kind, fused in KINDS.items():
                if kind not in loops:
                    loops[kind] = PlainLoop(config, batches[0].input_ids.shape[1], fused)
                started = now()
                loops[kind].step(batches)
                plain[kind].append(now() - started)
            self.began = now() - fetched
            return batches

    loader, trainer.loop.Loader = trainer.loop.Loader, Turns  # type: ignore[misc]
    try:
        trainer.loop.train(config)
    finally:
        trainer.loop.Loader = loader  # type: ignore[misc]
    # Products in bf16 round, and torch adds the loss of linear_cross_entropy in bf16.
    close = 0.02 if config.precision == "amp_bf16" else 1e-4
    history = read_history(Path(config.output_dir) / "history.jsonl")
    for kind, loop in loops.items():
        for line, loss in zip(history, loop.losses, strict=True):
            if abs(line["loss"] - loss) > close * loss:
                raise SystemExit(f"step {line['step']}: our loss is {line['loss']:.5f}, with {kind} {loss:.5f}")
    return ours, plain


def compare(training: str, settings: list[str], small: bool) -> dict[str, Any]:
    """The result of the benchmark."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from trainer.config import resolve

    warm_up, steps = (1, 4) if small else (WARM_UP, STEPS)
    config = resolve(training, [*settings, f"duration={{steps: {warm_up + steps + 1}, tokens: null}}"])
    ours, plain = turns(config)
    result: dict[str, Any] = {}
    for unit, name in enumerate(("clock", "processor")):
        own = [moment[unit] for moment in ours]
        print(f"ours: {statistics.median(own[warm_up:]):.3f} s a step by the {name}, the median of {steps}")
        against = {}
        for kind, moments in plain.items():
            seconds = [moment[unit] for moment in moments]
            # A step of ours over the mean of the plain ones before and after it: what grows evenly cancels.
            ratios = [2 * own[at] / (seconds[at] + seconds[at + 1]) for at in range(warm_up, len(own))]
            low, middle, high = statistics.quantiles(ratios, n=4)
            against[kind] = round(middle, 3)
            print(
                f"  {kind}: {statistics.median(seconds[warm_up:]):.3f} s; ratio {middle:.3f} ({low:.3f} to {high:.3f})"
            )
        result[name] = against
    return {**result, "step_vs_plain": max(result["clock"].values())}
