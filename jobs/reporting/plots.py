"""Plots from plain, non-empty values, as PNG bytes. matplotlib is used without a display."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

from jobs.reporting.data import Histogram, LossCurve, ReportData, StepTime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, RULE = "#1f2933", "#7b8794", "#e4e7eb"
COLOURS = ("#2f6f9f", "#d9822b", "#4f8a5b", "#8e5ea2", "#b5495b")
DPI = 160
HEIGHT = 2.6  # inches
WIDTH = 5.6  # inches; two plots stand side by side on the page
BINS = 40

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a dollar sign in the name of a source is a dollar sign
}


@contextmanager
def _axes(height: float) -> "Iterator[tuple[Axes, io.BytesIO]]":
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        # A figure of its own rather than pyplot's: no global state, no backend to choose.
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        yield figure.add_subplot(), buffer
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})


def bars(values: Mapping[str, float], colour: str = COLOURS[0]) -> bytes:
    """Horizontal bars, the greatest on top, each with its number."""
    with _axes(_tall(len(values))) as (axes, png):
        ordered = sorted(values.items(), key=lambda item: (item[1], item[0]))
        # By position: bars whose shortened names are equal would lie on one another.
        drawn = axes.barh(range(len(ordered)), [value for _, value in ordered], color=colour, height=0.62)
        axes.set_yticks(range(len(ordered)), [_short(name) for name, _ in ordered])
        axes.bar_label(drawn, labels=[f"{value:,.0f}" for _, value in ordered], padding=4, color=INK)
        _horizontal(axes)
    return png.getvalue()


def step_times(steps: Sequence[StepTime]) -> bytes:
    """Seconds of each step, in the order given from top to bottom, with its rows per second."""
    with _axes(_tall(len(steps))) as (axes, png):
        labels = [
            f"{step.seconds:,.0f} s"
            + (f"  ·  {step.rows / step.seconds:,.0f} rows/s" if step.rows and step.seconds else "")
            for step in steps
        ]
        drawn = axes.barh(range(len(steps)), [step.seconds for step in steps], color=COLOURS[0], height=0.62)
        axes.set_yticks(range(len(steps)), [_short(step.step) for step in steps])
        axes.bar_label(drawn, labels=labels, padding=4, color=INK)
        axes.invert_yaxis()
        _horizontal(axes)
    return png.getvalue()


def histogram(counts: Histogram, unit: str, colour: str = COLOURS[0]) -> bytes:
    """How often each size occurs; one bar per size where there are few sizes, else bins of equal width."""
    with _axes(HEIGHT) as (axes, png):
        sizes = sorted(counts)
        span = sizes[-1] - sizes[0] + 1
        width = -(-span // BINS)
        binned: dict[int, int] = {}
        for size in sizes:
            start = sizes[0] + (size - sizes[0]) // width * width
            binned[start] = binned.get(start, 0) + counts[size]
        axes.bar([start + (width - 1) / 2 for start in binned], list(binned.values()), width=0.86 * width, color=colour)
        if span <= 12:
            axes.set_xticks(range(sizes[0], sizes[-1] + 1))
        else:
            _thousands(axes.xaxis)
        axes.set_xlabel(unit)
        _thousands(axes.yaxis)
        axes.grid(axis="y")
    return png.getvalue()


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, so that a model has the same one in every plot."""
    return dict(zip(dict.fromkeys(names), cycle(COLOURS), strict=False))


def loss_curves(curves: Mapping[str, LossCurve], colour: Mapping[str, str]) -> bytes:
    """Loss over tokens seen: every step faint, a moving mean on top."""
    with _axes(HEIGHT) as (axes, png):
        for name, curve in curves.items():
            axes.plot(curve.tokens, curve.loss, color=colour[name], alpha=0.3, linewidth=0.8)
            axes.plot(curve.tokens, _smooth(curve.loss), color=colour[name], linewidth=1.8, label=name)
        axes.set_xlabel("tokens seen")
        axes.set_ylabel("loss, nats per token")
        _thousands(axes.xaxis)
        axes.grid(axis="y")
        axes.legend(labelcolor=INK)
    return png.getvalue()


def accuracy(data: ReportData, metric: str, colour: Mapping[str, str]) -> bytes:
    """One bar per model with its 95% interval; the chance level as a line where it is known."""
    with _axes(HEIGHT) as (axes, png):
        models = data.compared(metric)
        for position, name in enumerate(models):
            score = data.score(name, metric)
            assert score is not None
            low = score.value if score.low is None else score.low
            high = score.value if score.high is None else score.high
            error = [[100 * max(0.0, score.value - low)], [100 * max(0.0, high - score.value)]]
            axes.bar(position, 100 * score.value, yerr=error, width=0.5, color=colour[name], ecolor=INK, capsize=4)
            axes.text(position, 100 * high + 2, f"{score.value:.1%}", ha="center", va="bottom", color=INK)
        chance = data.score("chance", metric)
        if chance is not None:
            axes.axhline(100 * chance.value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.text(-0.58, 100 * chance.value + 1, "chance", ha="left", va="bottom", color=MUTED)
        axes.set_xticks(range(len(models)), models, color=INK)
        axes.set_xlim(-0.6, len(models) - 0.4)
        axes.set_ylim(0, 108)
        axes.set_ylabel("%")
        axes.grid(axis="y")
    return png.getvalue()


def _tall(bars: int) -> float:
    return max(1.2, 0.4 + 0.32 * bars)


def _horizontal(axes: "Axes") -> None:
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.margins(x=0.24)  # room for the numbers


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _magnitude(value)))


def _magnitude(value: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:,.0f}"


def _smooth(values: Sequence[float]) -> list[float]:
    """Moving mean over the last fiftieth of the curve."""
    window = max(1, len(values) // 50)
    smooth, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - window] if index >= window else 0.0)
        smooth.append(total / min(index + 1, window))
    return smooth


def _short(name: str) -> str:
    return name if len(name) <= 34 else name[:33] + "…"
