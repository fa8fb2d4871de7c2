"""What a report shows, as plain values. None stands for a part that is not there yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

Histogram = Mapping[int, int]  # size -> how often it occurs


@dataclass(frozen=True)
class Synthesis:
    """The table ``syntheses`` in numbers."""

    documents: int
    chains: int
    pairs: int
    rejected_pairs: Mapping[str, int]  # reason -> pieces
    formats: Mapping[str, int]  # format -> pairs
    statuses: Mapping[str, int]  # status -> documents
    pairs_per_document: Histogram
    completion_tokens: Histogram


@dataclass(frozen=True)
class Arm:
    """Documents of one arm: ``convert`` or ``raw``."""

    documents: int
    tokens: int


@dataclass(frozen=True)
class ShardSet:
    """One set of shards, in its newest state."""

    name: str
    rows: int
    tokens: int
    documents: int
    bytes: int
    sequence_length: int


@dataclass(frozen=True)
class StepTime:
    """Time and rows of all runs of a step that did something."""

    step: str
    verb: str
    seconds: float
    rows: int


@dataclass(frozen=True)
class LossCurve:
    """Training loss (nats per trained token) over the tokens seen, and the seconds that the steps took."""

    tokens: Sequence[float]
    loss: Sequence[float]
    seconds: float

    @property
    def final(self) -> float:
        """Mean of the last tenth of the curve; single steps are noisy."""
        tail = self.loss[-max(1, len(self.loss) // 10) :]
        return sum(tail) / len(tail)


@dataclass(frozen=True)
class Score:
    """One row of ``evaluations``."""

    subject: str
    task: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Example:
    """One document of ``syntheses`` with what was written about it."""

    name: str  # source, chain, round
    status: str
    context: str
    completion: str
    pairs: Sequence[Mapping[str, str]]
    rejected_pairs: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Rendering:
    """One text of ``augmented_texts`` with the pairs that went into it."""

    name: str  # source, chain, mode
    templates: Sequence[str]
    text: str
    pairs: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows."""

    received: Mapping[str, int] | None = None  # source, and domain where it has another name -> raw documents
    collected: Mapping[str, int] | None = None  # dataset or source -> examples, instructions, conversations
    rejects: Mapping[tuple[str, str], int] | None = None  # (verb, reason) -> records
    arms: Mapping[str, Arm] | None = None
    document_tokens: Histogram | None = None
    synthesis: Synthesis | None = None
    modes: Mapping[str, int] | None = None  # mode -> augmented texts
    shard_sets: Sequence[ShardSet] | None = None
    steps: Sequence[StepTime] | None = None
    curves: Mapping[str, LossCurve] = field(default_factory=dict)  # model -> curve
    scores: Sequence[Score] | None = None
    examples: Sequence[Example] | None = None
    renderings: Sequence[Rendering] | None = None

    def by_task(self) -> dict[str, "ReportData"]:
        """The report on each task that models were scored on, by what a heading adds: nothing where there is one."""
        scores = self.scores or ()
        tasks = list(dict.fromkeys(score.task for score in scores if score.metric == "acc"))
        if len(tasks) < 2:
            return {"": self}
        return {f", {task}": replace(self, scores=[score for score in scores if score.task == task]) for task in tasks}

    def score(self, subject: str, metric: str) -> Score | None:
        """The score of that subject and metric, if it was measured."""
        for score in self.scores or ():
            if (score.subject, score.metric) == (subject, metric):
                return score
        return None

    def compared(self, metric: str) -> list[str]:
        """Models that were scored by ``metric``, in the order of the scores."""
        return [name for name in self._subjects(metric) if " - " not in name and name != "chance"]

    def differences(self, metric: str) -> list[str]:
        """Subjects that are a difference of two models."""
        return [name for name in self._subjects(metric) if " - " in name]

    def _subjects(self, metric: str) -> list[str]:
        return list(dict.fromkeys(score.subject for score in self.scores or () if score.metric == metric))
