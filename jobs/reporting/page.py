"""The page: one HTML file that needs nothing else. Every text from the data is escaped by the template."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.reporting import plots
from jobs.reporting.data import ReportData
from jobs.reporting.summary import percent, summarise

TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Figure:
    """A plot with its caption; where ``png`` is None, ``absent`` stands in its place."""

    caption: str
    png: bytes | None
    absent: str = "Nothing to show yet."

    @property
    def uri(self) -> str:
        """The picture inside the page."""
        return "data:image/png;base64," + base64.b64encode(self.png or b"").decode("ascii")


@dataclass(frozen=True)
class Table:
    """A table whose first column is text and whose others are numbers."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    text: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = field(default_factory=tuple)


def render(data: ReportData, title: str, created: str, commands: Mapping[str, str]) -> str:
    """The page as HTML.

    Args:
        data: what to show.
        title: heading of the page.
        created: date and time, as it is to be shown.
        commands: what a command does -> the command, shown at the end.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        created=created,
        commands=commands,
        tiles=list(_tiles(data)),
        lines=summarise(data),
        sections=list(_sections(data)),
        examples=data.examples,
        renderings=data.renderings,
    )


def _tiles(data: ReportData) -> Iterator[tuple[str, str]]:
    if data.synthesis is not None:
        yield "documents", f"{data.synthesis.documents:,}"
        yield "pairs", f"{data.synthesis.pairs:,}"
    for metric, label in (("share_well_formed", "well formed"), ("share_right", "right")):
        score = data.score("synthesizer", metric)
        if score is not None:
            yield label, percent(score.value)
    for task, part in data.by_task().items():
        for name in part.compared("acc"):
            score = part.score(name, "acc")
            if score is not None:
                yield f"{name}{task or ', held out'}", percent(score.value)


def _sections(data: ReportData) -> Iterator[Section]:
    yield Section(
        "What came in, and what did not go on",
        "Every record that was read is either in a table or among the rejects, with the reason. Nothing is dropped "
        "silently.",
        (
            Figure("Raw documents by source and domain", plots.bars(data.received) if data.received else None),
            Figure(
                "Tuning examples, instructions and conversations by set",
                plots.bars(data.collected) if data.collected else None,
            ),
            Figure(
                "Rejected records by verb and reason",
                _rejects(data),
                **({"absent": "No record was rejected."} if data.rejects == {} else {}),
            ),
            Figure(
                "Length of documents, tokens",
                plots.histogram(data.document_tokens, "tokens per document") if data.document_tokens else None,
            ),
        ),
        _arms(data),
    )
    synthesis = data.synthesis
    yield Section(
        "What the synthesizer wrote",
        "Each document got one completion, or one for each sample. It is taken apart into instruction-response pairs; "
        "a piece that is not exactly one pair is kept as rejected, and nothing is repaired.",
        (
            Figure(
                "Pairs per document",
                plots.histogram(synthesis.pairs_per_document, "pairs that passed")
                if synthesis and synthesis.pairs_per_document
                else None,
            ),
            Figure(
                "Length of completions, tokens",
                plots.histogram(synthesis.completion_tokens, "tokens generated", plots.COLOURS[1])
                if synthesis and synthesis.completion_tokens
                else None,
            ),
            Figure("Pairs by format", plots.bars(synthesis.formats) if synthesis and synthesis.formats else None),
            Figure(
                "Rejected pieces by reason",
                plots.bars(synthesis.rejected_pairs, plots.COLOURS[1])
                if synthesis and synthesis.rejected_pairs
                else None,
            ),
            Figure("Finished training texts by mode", plots.bars(data.modes, plots.COLOURS[2]) if data.modes else None),
        ),
        _judged(data),
    )
    yield Section(
        "How long it took",
        "Seconds of the runs that did something, and the rows they wrote, per second. Starting Spark, an engine or a "
        "trainer is inside.",
        (Figure("Time by step", plots.step_times(data.steps) if data.steps else None),),
        _shards(data),
    )
    colour = plots.colours([*data.compared("acc"), *data.compared("exact_match"), *data.curves])
    yield Section(
        "Training",
        "Loss on the tokens that are trained on. Models that read different data cannot be ranked by it: pairs are "
        "more predictable than prose. A bold line is a moving mean, the final loss the mean of the last tenth.",
        (Figure("Loss over tokens seen", plots.loss_curves(data.curves, colour) if data.curves else None),),
        _curves(data),
    )
    yield Section(
        "Held-out questions",
        "Questions about the raw texts that no model was trained on. Likelihood: the option with the greatest "
        "log-likelihood is the model's answer. Free generation: the greedy first line must equal the "
        "answer. Bars are 95% intervals (Wilson for one model; for a difference paired by question, with questions "
        "about one subject taken together).",
        [
            Figure(f"{caption}{task}", plots.accuracy(part, metric, colour) if part.compared(metric) else None)
            for task, part in data.by_task().items()
            for caption, metric in (
                ("Accuracy by likelihood over the options", "acc"),
                ("Exact match of free generation", "exact_match"),
            )
        ],
    )


def _rejects(data: ReportData) -> bytes | None:
    if not data.rejects:
        return None
    return plots.bars({f"{verb}: {reason}": count for (verb, reason), count in data.rejects.items()}, plots.COLOURS[1])


def _arms(data: ReportData) -> list[Table]:
    if not data.arms:
        return []
    rows = [(name, f"{arm.documents:,}", f"{arm.tokens:,}") for name, arm in sorted(data.arms.items())]
    return [Table("Documents by arm", ("arm", "documents", "tokens"), rows)]


def _judged(data: ReportData) -> list[Table]:
    """Shares of the synthesizer by source and by format, each with what was measured."""
    tables = []
    metrics = (("share_well_formed", "well formed"), ("share_grounded", "in the text"), ("share_right", "right"))
    for caption, prefix in (("By source", "synthesizer on "), ("By format", "synthesizer in ")):
        found = [score for score in data.scores or () if score.subject.startswith(prefix)]
        columns = [(metric, label) for metric, label in metrics if any(score.metric == metric for score in found)]
        rows = []
        for subject in dict.fromkeys(score.subject for score in found):
            scores = {score.metric: score for score in found if score.subject == subject}
            pairs = scores["share_grounded"].n if "share_grounded" in scores else 0
            shares = [percent(scores[metric].value) if metric in scores else "" for metric, _ in columns]
            rows.append((subject.removeprefix(prefix), f"{pairs:,}", *shares))
        if rows:
            head = (caption.removeprefix("By "), "pairs", *(label for _, label in columns))
            tables.append(Table(caption, head, sorted(rows)))
    return tables


def _shards(data: ReportData) -> list[Table]:
    rows = [
        (
            shards.name,
            f"{shards.documents:,}",
            f"{shards.tokens:,}",
            f"{shards.rows:,}",
            f"{shards.sequence_length:,}",
            percent(shards.tokens / (shards.rows * shards.sequence_length)) if shards.rows else "",
            f"{shards.bytes / 1e6:,.1f}",
        )
        for shards in data.shard_sets or ()
    ]
    head = ("shard set", "texts", "tokens", "rows", "row length", "filled", "MB")
    return [Table("Shards", head, rows)] if rows else []


def _curves(data: ReportData) -> list[Table]:
    rows = [
        (
            name,
            f"{curve.tokens[-1]:,.0f}",
            f"{curve.final:.3f}",
            f"{curve.tokens[-1] / curve.seconds:,.0f}" if curve.seconds else "",
        )
        for name, curve in data.curves.items()
    ]
    return [Table("Models", ("model", "tokens seen", "final loss", "tokens/s"), rows)] if rows else []
