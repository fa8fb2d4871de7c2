"""What a training says about itself: lines on the terminal, ``history.jsonl`` and the metrics of the MLflow run.

The numbers of a step stay on the device until ``log_every`` steps are reported together, so that reporting makes no
step wait. Metrics, each over the steps since the last report (losses over those that were applied):

    loss                     summed weighted cross-entropy / summed weight, nats
    loss/source/<name>       mean cross-entropy of the learned tokens of a source; loss/role/<name> of a role
    tokens, supervised_tokens, tokens/source/<name>    since the start of training, padding left out
    tokens_per_second, tokens_per_second_per_device
    mfu, mfu_exact           work / time / peak: by the published convention, and of the attention really computed;
                             none where the device's peak is not known
    seconds/data             waited for the loader; seconds/forward, /backward, /optimizer, /other: rank 0's, per step
    peak_memory_gib          rank 0's: allocated on its GPU, or of its process
    skipped_steps            since the start
    held_out/loss, held_out/loss/source/<name>, held_out/loss/role/<name>    of ``trainer.held_out``
    held_out/acc, held_out/acc_norm    of ``trainer.questions``
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.checkpoints.checkpoints import Progress
from trainer.checkpoints.layout import HISTORY, RECORD
from trainer.config import TrainingConfig, describe, tracking_uri
from trainer.data.loader import Counts
from trainer.data.objective import Groups
from trainer.data.sources import ShardSet
from trainer.distributed import World
from trainer.engine import StepResult, deepspeed_config
from trainer.planning.flops import Shape, device_named
from trainer.planning.plan import Plan
from trainer.show import sample_page
from trainer.timing import total
from trainer.tracking.plots import draw
from trainer.tracking.store import IDENTITY
from trainer.tracking.system import SystemMetrics, peak_memory
from trainer.tracking.tracking import History, Tracker, read_history

# Parts of the names of those metrics that say how good a model is.
_SCORES = {"loss", "acc", "acc_norm"}
# What MLflow allows in the name of a metric.
_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True)
class Step:
    """One step, until it is reported.

    Attributes:
        line: its line of the history; ``grad_norm`` and ``loss`` are added.
        result: of the engine.
        counts: of this rank's batches.
    """

    line: dict[str, Any]
    result: StepResult
    counts: Counts


class Reporter:
    """Every rank calls it; rank 0 writes."""

    def __init__(
        self,
        config: TrainingConfig,
        world: World,
        planned: Plan,
        progress: Progress,
        sets: dict[str, ShardSet],
        parameters: int,
        shape: Shape | None,
    ) -> None:
        self._world = world
        self._planned = planned
        self._shape = shape
        self._length = next(iter(sets.values())).manifest.sequence_length
        self._groups = Groups(tuple(sets))
        device = device_named(torch.cuda.get_device_name(world.device)) if world.device.type == "cuda" else None
        self._peak = device.flops if device else None
        self._supervised = progress.supervised_tokens
        self._source_tokens = np.array([(progress.source_tokens or {}).get(name, 0) for name in sets], np.int64)
        self._pending: list[Step] = []
        self._tracker: Tracker | None = None
        self._history: History | None = None
        self._system = SystemMetrics(world)
        self._scores: dict[str, float] = {}
        self._output = Path(config.output_dir)
        if not world.main:
            return
        output = Path(config.output_dir)
        self._history = History(output / HISTORY, progress.step)
        tags = {"ipt.verb": "train", IDENTITY: planned.identity, "mlflow.source.name": "trainer"}
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
            output,
        )
        if progress.step:
            self._tracker.tag({"resumed_from_step": str(progress.step)})
        else:
            self._tracker.text(sample_page(config), "tokens.html")
        self._tracker.text(describe(config), "training.yaml")
        self._tracker.text(json.dumps(deepspeed_config(config, world.size), indent=1), "deepspeed.json")

    @property
    def run_id(self) -> str:
        """MLflow run, "" on the other ranks and where there is none."""
        return self._tracker.run_id if self._tracker else ""

    @property
    def counts(self) -> dict[str, Any]:
        """What ``Progress`` remembers of the reports, as of the last one."""
        tokens = dict(zip(self._groups.sources, self._source_tokens.tolist(), strict=True))
        return {"run_id": self.run_id, "supervised_tokens": self._supervised, "source_tokens": tokens}

    def step(self, step: Step) -> None:
        """Take note of a step."""
        self._pending.append(step)

    def flush(self, others: Mapping[str, float] | None = None) -> None:
        """Report the steps since the last time, with other metrics of the last step. Every rank must call it at the
        same step."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        learning = torch.tensor([step.result.applied for step in pending], device=pending[0].result.groups.device)
        entropies = torch.stack([step.result.groups for step in pending])[learning].sum(0).cpu().double().numpy()
        learned = np.sum([step.counts.learned for step in pending if step.result.applied], axis=0) + np.zeros(
            len(entropies)
        )
        tokens = np.sum([step.counts.source_tokens for step in pending], axis=0)
        mine = np.concatenate([entropies, learned, tokens, [sum(step.counts.squares for step in pending)]])
        parts = (len(entropies), 2 * len(entropies), len(mine) - 1)
        entropies, learned, tokens, squares = np.split(np.array(self._world.sum(*mine.tolist())), parts)
        self._supervised += int(learned.sum())
        self._source_tokens += tokens.astype(np.int64)
        system = self._system.gather()
        if self._tracker is None or self._history is None:
            return
        lines = [{**step.line, "loss": step.result.loss, "grad_norm": float(step.result.grad_norm)} for step in pending]
        window = self._window(lines, pending, self._groups.means(entropies, learned), float(squares[0])) | dict(
            others or {}
        )
        self._history.write([*lines[:-1], window | lines[-1]])
        metrics = {_NOT_IN_A_NAME.sub("_", name): value for name, value in window.items()}
        self._tracker.log(metrics | system, lines[-1]["step"])
        self._scores |= {name: value for name, value in metrics.items() if _SCORES & {*name.split("/")}}
        skipped = f"  {window['skipped_steps']:.0f} skipped" if window["skipped_steps"] else ""
        print(
            f"step {lines[-1]['step']}/{self._planned.steps}  loss {window['loss']:.4f}  "
            f"lr {window['learning_rate']:.2e}  grad {window['grad_norm']:.2f}  "
            f"{window['tokens_per_second']:,.0f} tokens/s{skipped}",
            flush=True,
        )

    def checkpoint(self, path: Path, progress: Progress) -> None:
        """Tell of a published checkpoint, with the last losses and accuracies, held-out ones too, as its scores."""
        if self._tracker is not None:
            self._tracker.checkpoint(path, progress.step, self._scores, {"tokens": progress.tokens})

    def result(self, record: Mapping[str, Any]) -> None:
        """Keep with the run what the exported model says it came from."""
        if self._tracker is not None:
            self._tracker.text(json.dumps(record, indent=1, sort_keys=True), RECORD)

    def close(self, status: str) -> None:
        """Draw the history, and end the run."""
        if self._tracker is not None:
            plot = self._output / "training.png"
            draw(read_history(self._output / HISTORY), plot)
            self._tracker.file(plot, "plots")
            self._tracker.file(self._output / HISTORY)
            self._tracker.finish(status)

    def _window(
        self, lines: list[dict[str, Any]], pending: list[Step], losses: dict[str, float], squares: float
    ) -> dict[str, float]:
        last = lines[-1]
        learning = [line for line in lines if not line["skipped"]]
        weight = sum(line["loss_weight"] for line in learning)
        seconds = sum(line["step_seconds"] for line in lines)
        tokens = sum(line["step_tokens"] for line in lines)
        split = total(step.result.times for step in pending)
        split["data"] = sum(line["data_wait_seconds"] for line in lines)
        split["other"] = max(0.0, seconds - sum(split.values()))
        metrics = {
            "loss": sum(line["loss"] * line["loss_weight"] for line in learning) / weight if weight else math.nan,
            **losses,
            **{name: float(last[name]) for name in ("learning_rate", "grad_norm", "tokens", "skipped_steps")},
            "supervised_tokens": float(self._supervised),
            **{f"tokens/source/{name}": float(count) for name, count in self.counts["source_tokens"].items()},
            "tokens_per_second": tokens / seconds,
            "tokens_per_second_per_device": tokens / seconds / self._world.size,
            "step_seconds": seconds / len(lines),
            **{f"seconds/{part}": value / len(lines) for part, value in split.items()},
            "peak_memory_gib": peak_memory(self._world.device) / 2**30,
        }
        if self._peak and self._shape:
            work = seconds * self._peak * self._world.size
            metrics["mfu"] = tokens * self._shape.flops_per_token(self._length) / work
            metrics["mfu_exact"] = self._shape.flops(tokens, squares) / work
        return metrics
