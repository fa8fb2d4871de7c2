"""Our trainer and transformers' ``Trainer`` on the same model, attention, rows and batch, in turns, each in a process
of its own, so that one has the whole device. On a CPU this shows that it runs.

``Trainer`` has fp32 weights under bf16 autocast, its way of mixed precision, with fused AdamW, no look at each loss for
NaN, and rows read ahead by a worker. It compiles and recomputes what our configuration says.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WARM_UP, STEPS, TURNS = 8, 20, 2


def compare(name: str, settings: list[str], small: bool) -> dict[str, Any]:
    """The result of the benchmark."""
    warm_up, steps, turns = (1, 2, 1) if small else (WARM_UP, STEPS, TURNS)
    settings = [*settings, f"duration={{steps: {warm_up + steps + 1}, tokens: null}}"]
    settings += ["log_every=1"] if small else []
    seen: dict[str, list[dict[str, Any]]] = {"ours": [], "hf-trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns):
            for who, found in seen.items():
                output = Path(folder) / f"{who}-{turn}"
                file = output.with_suffix(".json")
                job = [who, name, str(warm_up), str(file), *settings, f"output_dir={output}"]
                subprocess.run([sys.executable, "-m", "benchmarks.hf_trainer", *job], check=True, stdout=sys.stderr)
                found.append(json.loads(file.read_text(encoding="utf-8")))
                print(f"turn {turn + 1}: {who}: {found[-1]}")
    losses = [found[0].pop("losses") for found in seen.values()]
    if any(abs(loss - other) > 0.02 * loss for loss, other in zip(*losses, strict=True)):
        raise SystemExit(f"the losses differ: {losses[0]} and {losses[1]}")
    result: dict[str, Any] = {"device": seen["ours"][0]["device"]}
    for who, found in seen.items():
        numbers = ("tokens_per_second", "mfu", "memory_gib")
        known = [key for key in numbers if found[0][key] is not None]
        result[who] = {key: round(statistics.mean(entry[key] for entry in found), 3) for key in known}
    speeds = [result[who]["tokens_per_second"] for who in seen]
    result["speed_vs_hf_trainer"] = round(speeds[0] / speeds[1], 3)
    return result


class Clock:
    """Tells when counting begins and ends. Asked at the beginning of each step; waits for the device at those two.

    Args:
        first, last: numbers of the first step that counts, and of the first that no longer does, from 0.
    """

    def __init__(self, first: int, last: int) -> None:
        self._bounds = (first, last)
        self._moments: list[float] = []

    def begins(self, step: int) -> None:
        """The step of this number begins."""
        import torch

        if step in self._bounds:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self._moments.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        """Seconds from the first bound to the second."""
        first, last = self._moments
        return last - first


def ours(config: Any, clock: Clock) -> list[float]:
    """Train with our trainer; gives the mean loss of each ``log_every`` steps."""
    import trainer.loop
    from trainer.data.loader import Batch, Loader
    from trainer.tracking.tracking import read_history

    class Timed(Loader):
        """The trainer's loader: the first thing a step asks for is its batches."""

        def step(self, position: int) -> list[Batch]:
            clock.begins(position // config.batch.sequences)
            return super().step(position)

    trainer.loop.Loader = Timed  # type: ignore[misc]
    trainer.loop.train(config)
    found = [line["loss"] for line in read_history(Path(config.output_dir) / "history.jsonl")]
    every = config.log_every
    return [statistics.mean(found[at : at + every]) for at in range(0, len(found) - every + 1, every)]


def theirs(config: Any, clock: Clock) -> list[float]:
    """The same with transformers' ``Trainer``."""
    import numpy as np
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from trainer.data.loader import read_rows
    from trainer.data.objective import role_weights
    from trainer.data.sources import mixture, open_sets
    from trainer.model.architecture import build_model, model_config
    from trainer.model.attention import attention_implementation, attention_inputs

    sets = open_sets(config)
    order = mixture(config, sets)
    cuda = torch.cuda.is_available()
    half = config.precision != "fp32"
    weights = role_weights(config.objective)
    length = next(iter(sets.values())).manifest.sequence_length
    attention = attention_implementation(torch.device("cuda" if cuda else "cpu"), length, half)
    model = build_model(config.model, model_config(config.model, config.model.vocab_size, 1, 2), attention, config.seed)

    def batch_of(positions: list[int]) -> dict[str, Any]:
        places = [entry.tolist() for entry in order.locate(np.array(positions))]
        batch = read_rows(list(sets.values()), list(zip(*places, strict=True)), weights, by_example=False)
        inputs = attention_inputs(batch, model.config, torch.bfloat16 if half else torch.float32)
        # A place's label is the token at it; that of a document's first token belongs to another document.
        labels = torch.full((batch.input_ids.numel(),), -100)
        labels[batch.positions + 1] = batch.targets
        return {**inputs, "labels": labels.reshape(inputs["input_ids"].shape)}

    class Timed(TrainerCallback):
        """Tells the clock of every step."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            clock.begins(state.global_step)

    settings = config.optimizer
    steps = config.duration.steps
    arguments = TrainingArguments(
        output_dir=config.output_dir,
        max_steps=steps,
        per_device_train_batch_size=config.batch.micro_batch,
        gradient_accumulation_steps=config.batch.sequences // config.batch.micro_batch,
        learning_rate=settings.lr,
        lr_scheduler_type="constant",
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        adam_epsilon=settings.eps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.gradient_clipping,
        optim="adamw_torch_fused",
        bf16=half,
        use_cpu=not cuda,
        torch_compile=config.compile,
        gradient_checkpointing=config.activation_checkpointing != "none",
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=int(cuda),
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    positions = range(steps * config.batch.sequences)
    trainer = Trainer(model, arguments, data_collator=batch_of, train_dataset=positions, callbacks=[Timed()])
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def main(who: str, name: str, warm_up: int, file: Path, settings: list[str]) -> None:
    """Train in this process, and write what was measured."""
    import numpy as np
    import torch

    from trainer.config import resolve
    from trainer.data.sources import mixture, open_sets
    from trainer.planning.flops import Shape, device_named

    config = resolve(name, settings)
    torch.set_float32_matmul_precision(config.matmul_precision)
    last = config.duration.steps - 1
    clock = Clock(warm_up, last)
    losses = ours(config, clock) if who == "ours" else theirs(config, clock)
    sets = open_sets(config)
    rows = np.arange(warm_up * config.batch.sequences, last * config.batch.sequences)
    tokens = 0
    for source, row in zip(*mixture(config, sets).locate(rows), strict=True):
        reader, place = list(sets.values())[source].locate(int(row))
        tokens += int(reader.lengths(place).sum())
    length = next(iter(sets.values())).manifest.sequence_length
    cuda = torch.cuda.is_available()
    known = device_named(torch.cuda.get_device_name()) if cuda else None
    speed = tokens / clock.seconds
    result = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "tokens_per_second": speed,
        # By the convention of published figures: every row one document, attention to all positions.
        "mfu": speed * Shape.of(config.model, None).flops_per_token(length) / known.flops if known else None,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "losses": losses,
    }
    file.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
