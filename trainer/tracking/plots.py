"""Plots of a training: its history, and the losses of examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What is drawn over the tokens seen: key of the history, label of the axis, whether the axis is logarithmic.
_CURVES = (
    ("loss", "loss, nats per unit of weight", False),
    ("learning_rate", "learning rate", False),
    ("grad_norm", "gradient norm", True),
    ("step_seconds", "seconds per step", False),
)
_SMOOTH = 0.9  # weight of the past in the line through the losses


def draw(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss, learning rate, gradient norm and time of every step over the tokens seen, as a PNG file.

    Args:
        lines: of ``history.jsonl``; values that are null are left out.
        path: of the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (key, label, logarithmic) in enumerate(_CURVES, start=1):
        axes = figure.add_subplot(2, 2, place)
        points = [(line["tokens"], line[key]) for line in lines if line.get(key) is not None]
        if points:
            tokens, values = zip(*points, strict=True)
            axes.plot(tokens, values, linewidth=0.8, alpha=0.5 if key == "loss" else 1.0)
            if key == "loss":
                axes.plot(tokens, smoothed(values), linewidth=1.6)
        axes.set_xlabel("tokens")
        axes.set_ylabel(label)
        if logarithmic and points and min(values) > 0:
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def draw_losses(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How the loss of the responses is spread over the examples of each set, as a PNG file; dashed lines are means.

    Args:
        rows: of ``trainer.loss_analysis``, with ``model``, ``set`` and ``response_loss``.
        path: of the file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets, models = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "model"))
    figure = Figure(figsize=(5 * max(1, len(sets)), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(sets, start=1):
        axes = figure.add_subplot(1, len(sets), place)
        greatest = max(row["response_loss"] for row in rows if row["set"] == name)
        for number, model in enumerate(models):
            losses = [row["response_loss"] for row in rows if (row["set"], row["model"]) == (name, model)]
            mean = sum(losses) / len(losses)
            axes.hist(losses, bins=40, range=(0, greatest), alpha=0.5, color=f"C{number}", label=f"{model}: {mean:.3f}")
            axes.axvline(mean, linestyle="--", color=f"C{number}")
        axes.set_title(f"{name}, {len(losses):,} examples")
        axes.set_xlabel("mean loss of the response tokens, nats")
        axes.set_ylabel("examples")
        axes.legend(title="model: mean")
    figure.savefig(path, dpi=120)


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average, corrected for its start."""
    average, weight, found = 0.0, 0.0, []
    for value in values:
        average = _SMOOTH * average + (1 - _SMOOTH) * value
        weight = _SMOOTH * weight + (1 - _SMOOTH)
        found.append(average / weight)
    return found
