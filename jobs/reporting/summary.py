"""The summary: one table for the terminal and for the page, made from the same rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jobs.reporting.data import ReportData, Score

ABSENT = "absent"


@dataclass(frozen=True)
class Line:
    """One line of the summary; a ``group`` begins where it differs from the line before."""

    group: str
    label: str
    value: str
    interval: str = ""
    note: str = ""


def summarise(data: ReportData) -> list[Line]:
    """The lines of the summary, in reading order. What is absent says so."""
    return [*_synthesis(data), *_shards(data), *_training(data), *_accuracy(data)]


def _synthesis(data: ReportData) -> Iterator[Line]:
    group = "Synthesis"
    synthesis = data.synthesis
    if synthesis is None:
        yield Line(group, "documents, chains, pairs", ABSENT)
    else:
        yield Line(group, "documents", f"{synthesis.documents:,}")
        yield Line(group, "chains", f"{synthesis.chains:,}")
        yield Line(group, "pairs", f"{synthesis.pairs:,}")
    for metric, label in (
        ("share_well_formed", "well-formed pairs"),
        ("share_right", "right answers"),
        ("share_grounded", "answers found in the text"),
    ):
        score = data.score("synthesizer", metric)
        if score is not None:
            yield Line(group, label, percent(score.value), interval(score), f"n = {score.n:,}")


def _shards(data: ReportData) -> Iterator[Line]:
    group = "Tokens in shards"
    if not data.shard_sets:
        yield Line(group, "shard sets", ABSENT)
    for shards in data.shard_sets or ():
        yield Line(group, shards.name, f"{shards.tokens:,}", note=f"{shards.documents:,} texts")


def _training(data: ReportData) -> Iterator[Line]:
    group = "Training loss at the end"
    if not data.curves:
        yield Line(group, "models", ABSENT)
    for name, curve in data.curves.items():
        yield Line(group, name, f"{curve.final:.3f}", note=f"{curve.tokens[-1]:,.0f} tokens")


def _accuracy(data: ReportData) -> Iterator[Line]:
    for task, part in data.by_task().items():
        group = f"Held-out accuracy{task}"
        if not part.compared("acc"):
            yield Line(group, "models", ABSENT)
        for name in part.compared("acc"):
            yield _scored(group, name, part, percent, signed=False)
        for name in part.differences("acc"):
            yield _scored(group, name, part, points, signed=True)


def _scored(group: str, name: str, data: ReportData, write: Callable[[float], str], signed: bool) -> Line:
    score, exact = data.score(name, "acc"), data.score(name, "exact_match")
    assert score is not None
    beside = f"exact match {write(exact.value)}" if exact else ""
    return Line(group, name, write(score.value), interval(score, signed), beside)


def percent(share: float) -> str:
    """``0.853`` as ``85.3%``."""
    return f"{share:.1%}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f} pt"


def interval(score: Score, signed: bool = False) -> str:
    """The 95% interval in percent, or nothing where there is none."""
    if score.low is None or score.high is None:
        return ""
    form = "{:+.1f}" if signed else "{:.1f}"
    return f"{form.format(100 * score.low)} to {form.format(100 * score.high)}"
