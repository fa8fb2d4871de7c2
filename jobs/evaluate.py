"""Score models and the synthesizer.

Models answer the held-out questions, by likelihood over the options and in free generation, in a process of their own
(``python -m trainer.evaluation``), so that no job loads a model. What is scored already, by the content of model and
questions, is not scored again. The synthesizer is judged by what it wrote into ``syntheses``: share of well-formed
pairs, and with the almanac's truth the share of right ones. Writes ``evaluations``, once for each state of the inputs,
and the scores of every question below ``evaluations/<step>/`` in the lakehouse's folder.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from jobs.lakehouse.files import located
from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Verb
from jobs.lakehouse.tables import TABLES
from udfs.config import Config
from udfs.errors import ConfigError, EnvironmentProblem
from udfs.hashing import identifier
from udfs.statistics import Estimate, paired_difference, wilson
from udfs.synthesis.pairs import REJECTIONS
from udfs.text.readers import Record
from udfs.text.recast.held_out import write_held_out_questions
from udfs.text.sources import FileSource

if TYPE_CHECKING:
    import pyarrow as pa

METRICS = ("acc", "acc_norm", "exact_match")
# Subjects of the table that are no model: what guessing gives, and between the names of two models their difference.
CHANCE, DIFFERENCE = "chance", " - "
SYNTHESIZER, _TASK = "synthesizer", "synthesis"
_HASHED = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*")
_MODEL_NAME = re.compile(r"[^/\\\s.-][^/\\\x00-\x1f]{,99}")
_TAIL = 2_000  # characters of a failed process's output that are shown


class SynthesizerConfig(Config):
    """How pairs are judged."""

    # The almanac's facts (`truth/facts.jsonl`); without them form and grounding are measured, but not rightness.
    truth: Path | None = None


class EvaluateConfig(Config):
    """What is scored, on what."""

    # Name of a model in tables and plots -> its folder.
    models: dict[str, Path] = Field(default_factory=dict)
    # JSON lines of held-out questions; these or `questions_from` are needed as soon as there are models.
    questions: Path | None = None
    # A published set instead: what people asked about its texts, as a choice of four (`udfs.text.recast.held_out`).
    questions_from: FileSource | None = None
    # Name of the task in the table.
    task: str = "held_out_questions"
    # The model that is compared, question by question, with each of the others.
    treatment: str | None = None
    # Torch device; null takes the GPU where there is one.
    device: str | None = None
    # Present: judge what is in `syntheses`.
    synthesizer: SynthesizerConfig | None = None

    @field_validator("models")
    @classmethod
    def _names_of_files(cls, value: dict[str, Path]) -> dict[str, Path]:
        wrong = [name for name in value if not _MODEL_NAME.fullmatch(name)]
        if wrong:
            raise ValueError(
                "a model's name begins the name of a file, so it must have 1 to 100 characters, no slash, and none of "
                f". and - at its start; not {wrong}"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        if not self.models and self.synthesizer is None:
            raise ValueError("nothing to score: give `models` or `synthesizer`")
        if self.models and self.questions is None and self.questions_from is None:
            raise ValueError("`models` are given but no `questions` to put to them")
        if self.questions_from is not None and (self.questions is not None or not self.questions_from.is_recast):
            raise ValueError("`questions_from` stands instead of `questions`, with the `format` of a published set")
        for name in self.models:
            if name == CHANCE or DIFFERENCE in name:
                raise ValueError(f"models: {name!r} means something else in the table; give the model another name")
        if self.treatment is not None and self.treatment not in self.models:
            raise ValueError(f"treatment {self.treatment!r} is not one of the models: {', '.join(self.models)}")
        return self


@dataclass(frozen=True)
class Score:
    """One row of ``evaluations``."""

    subject: str
    task: str
    metric: str
    estimate: Estimate
    has_interval: bool = True

    def row(self) -> tuple[Any, ...]:
        """Values in the order of the table's columns."""
        value, low, high = (float(end) for end in (self.estimate.value, self.estimate.low, self.estimate.high))
        interval = (low, high) if self.has_interval else (None, None)
        return (self.subject, self.task, self.metric, value, *interval, self.estimate.n)


def evaluate(config: EvaluateConfig, job: Job) -> dict[str, float]:
    """Score everything the configuration names, write the rows, and give ``<subject>/<metric>`` -> value."""
    if config.questions_from is not None:
        config = config.model_copy(update={"questions": _written_questions(config.questions_from, job)})
    fingerprint = _inputs(config, job)
    scores = [*_score_models(config, job), *_score_synthesizer(config, job)]
    _write(scores, fingerprint, job)
    return {f"{score.subject}/{score.metric}": score.estimate.value for score in scores}


def _written_questions(source: FileSource, job: Job) -> Path:
    """The questions of a published file, as JSON lines in the step's folder."""
    (source,) = located([source], job)
    path = job.lakehouse.path("evaluations", job.step, "questions.jsonl")
    unread: list[dict[str, Any]] = []

    def examples() -> Iterator[dict[str, Any]]:
        for item in source.records(source.path, "example", "evaluate"):
            if isinstance(item, Record):
                yield item.fields
            else:
                unread.append(item)

    try:
        write_held_out_questions(path, examples(), source.name_of(source.path))
    finally:
        for item in unread[:1]:
            said = f"{len(unread)} records of it were not read, the first: {item['reason']}, {item['detail']}"
            job.progress.step(job.step, f"{source.path}: {said}")
    return path


def _inputs(config: EvaluateConfig, job: Job) -> str:
    """Names everything the scores depend on.

    Raises:
        ConfigError: the questions or the truth are not there.
        EnvironmentProblem: a model is not there.
    """
    parts: list[Any] = [job.config_hash]
    truth = config.synthesizer.truth if config.synthesizer is not None else None
    for label, path in (("questions", config.questions), ("truth", truth)):
        if path is not None:
            file = job.lakehouse.path(path)
            if not file.is_file():
                raise ConfigError(f"{job.step}: no {label} at {file}. Give the path of a file that is there.")
            parts.append(_file_hash(file))
    parts += [_model_hash(name, job.lakehouse.path(path)) for name, path in config.models.items()]
    if config.synthesizer is not None:
        version = job.lakehouse.version("syntheses")
        # A table that was dropped and made again reaches the same version number with other rows.
        parts += [version, job.lakehouse.identity("syntheses") if version >= 0 else ""]
    return identifier(*parts)


def _model_hash(name: str, folder: Path) -> str:
    files = sorted({file for pattern in _HASHED for file in folder.glob(pattern)})
    if not any(file.suffix == ".safetensors" for file in files):
        raise EnvironmentProblem(f"model {name!r}: no *.safetensors in {folder}. Train it, or give another path.")
    return identifier(*(part for file in files for part in (file.name, _file_hash(file))))


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _score_models(config: EvaluateConfig, job: Job) -> Iterator[Score]:
    results = _answers(config, job)
    for name, result in results.items():
        for metric in METRICS:
            yield Score(name, config.task, metric, Estimate(**result["metrics"][metric]))
    for result in list(results.values())[:1]:
        guesses = [1 / len(item["log_likelihoods"]) for item in result["items"]]
        share = sum(guesses) / len(guesses)
        yield Score(CHANCE, config.task, "acc", Estimate(share, share, share, len(guesses)), has_interval=False)
    if config.treatment is None:
        return
    for name, result in results.items():
        if name != config.treatment:
            yield from _differences(config.treatment, name, results[config.treatment]["items"], result["items"], config)


def _differences(
    treatment: str,
    baseline: str,
    treatment_items: Sequence[Mapping[str, Any]],
    baseline_items: Sequence[Mapping[str, Any]],
    config: EvaluateConfig,
) -> Iterator[Score]:
    # Questions about one subject stand or fall together: whether its text was read often enough.
    clusters = [item.get("subject", item["question_id"]) for item in treatment_items]
    for metric in METRICS:
        estimate = paired_difference(
            [item[metric] for item in treatment_items], [item[metric] for item in baseline_items], clusters
        )
        yield Score(f"{treatment}{DIFFERENCE}{baseline}", config.task, metric, estimate)


def _answers(config: EvaluateConfig, job: Job) -> dict[str, dict[str, Any]]:
    """What each model answered: from the file of an earlier run where model and questions are the same, else now."""
    if not config.models:
        return {}
    assert config.questions is not None  # checked by the configuration
    questions = job.lakehouse.path(config.questions)
    outputs = {}
    command = [sys.executable, "-m", "trainer.evaluation", "--questions", str(questions)]
    command += ["--device", config.device] if config.device else []
    missing = []
    for name, path in config.models.items():
        model = job.lakehouse.path(path)
        key = identifier(_model_hash(name, model), _file_hash(questions))
        outputs[name] = job.lakehouse.path("evaluations", job.step, f"{name}-{key[:12]}.json")
        if not outputs[name].is_file():
            missing.append(name)
            command += ["--name", name, "--model", str(model), "--output", str(outputs[name])]
    if missing:
        job.progress.step(job.step, f"{', '.join(missing)}: answering {questions.name}")
        _run(command, missing)
    return {name: json.loads(output.read_text(encoding="utf-8")) for name, output in outputs.items()}


def _run(command: Sequence[str], names: Sequence[str]) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        output = (finished.stdout + finished.stderr)[-_TAIL:]
        raise EnvironmentProblem(f"scoring {', '.join(names)} failed with exit code {finished.returncode}:\n{output}")


def _score_synthesizer(config: EvaluateConfig, job: Job) -> Iterator[Score]:
    """Counts and shares over the table ``syntheses``: of all, of each source and of each format."""
    if config.synthesizer is None:
        return
    from pyspark.sql import functions as F

    table = job.lakehouse.read("syntheses")
    totals = (
        table.groupBy("source")
        .agg(
            # A document and a chain have one source.
            F.count_distinct("doc_id", "chunk").alias("documents"),
            F.count_distinct("chain_id").alias("chains"),
            F.sum(F.size("pairs")).alias("pairs"),
            # A pair that a check took out is well-formed all the same.
            F.sum(F.size(F.filter("rejected_pairs", lambda piece: piece["reason"].isin(*REJECTIONS)))).alias(
                "malformed"
            ),
            F.sum(F.size("rejected_pairs")).alias("rejected"),
        )
        .orderBy("source")
        .collect()
    )
    for metric in ("documents", "chains", "pairs"):
        count = sum(row[metric] for row in totals)
        yield Score(SYNTHESIZER, _TASK, metric, Estimate(count, count, count, count), has_interval=False)
    judged = _judged(table, config.synthesizer, job) if any(row["pairs"] for row in totals) else []
    has_truth = config.synthesizer.truth is not None
    yield from _shares(SYNTHESIZER, _pieces(totals), judged, has_truth)
    for row in totals:
        of_source = [entry for entry in judged if entry["source"] == row["source"]]
        yield from _shares(f"{SYNTHESIZER} on {row['source']}", _pieces([row]), of_source, has_truth)
    for kind in sorted({row["format"] for row in judged}):
        of_format = [row for row in judged if row["format"] == kind]
        # What was rejected has no format, so there is no share of well-formed pairs here.
        yield from _shares(f"{SYNTHESIZER} in {kind}", None, of_format, has_truth)


def _pieces(totals: Sequence[Any]) -> tuple[int, int]:
    """Pieces of completions: those that are pairs by their form, and all of them."""
    pieces = sum(row["pairs"] + row["rejected"] for row in totals)
    return pieces - sum(row["malformed"] for row in totals), pieces


def _shares(subject: str, pieces: tuple[int, int] | None, judged: Sequence[Any], has_truth: bool) -> Iterator[Score]:
    """Shares of the pairs in ``judged``. A pair that the judge does not understand is not right."""
    pairs = sum(row["n"] for row in judged)
    if pieces is not None and pieces[1]:
        yield Score(subject, _TASK, "share_well_formed", wilson(*pieces))
        yield Score(subject, _TASK, "share_kept", wilson(pairs, pieces[1]))
    if not pairs:
        return
    yield Score(subject, _TASK, "share_grounded", wilson(sum(row["n"] for row in judged if row["grounded"]), pairs))
    if has_truth:
        right = sum(row["n"] for row in judged if row["verdict"] == "right")
        understood = sum(row["n"] for row in judged if row["verdict"] != "unjudged")
        yield Score(subject, _TASK, "share_right", wilson(right, pairs))
        yield Score(subject, _TASK, "share_judged", wilson(understood, pairs))


def _judged(table: Any, config: SynthesizerConfig, job: Job) -> list[Any]:
    """Number of pairs by source, format, verdict and whether every word of the answer stands in the text."""
    from pyspark.sql import functions as F

    from udfs.almanac.judge import Judge

    judge = Judge.from_file(job.lakehouse.path(config.truth)) if config.truth is not None else None

    def judge_batches(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        from udfs.almanac.judge import grounded

        for batch in batches:
            rows = [
                {
                    "source": row["source"],
                    "format": pair["format"],
                    "verdict": judge.verdict(row["context"], pair) if judge else "unjudged",
                    "grounded": grounded(pair["response"], row["context"]) == 1.0,
                }
                for row in batch.to_pylist()
                for pair in row["pairs"]
            ]
            if rows:
                texts = [(name, pa.string()) for name in ("source", "format", "verdict")]
                yield pa.RecordBatch.from_pylist(rows, schema=pa.schema([*texts, ("grounded", pa.bool_())]))

    verdicts = table.select("source", "context", "pairs").mapInArrow(
        judge_batches, "source string, format string, verdict string, grounded boolean"
    )
    return list(verdicts.groupBy("source", "format", "verdict", "grounded").agg(F.count("*").alias("n")).collect())


def _write(scores: Sequence[Score], fingerprint: str, job: Job) -> None:
    """Append the rows once for each state of the inputs.

    The step's state counts the states. It is written before the rows, and the rows carry its number, so a run that was
    killed in between adds what is missing, and inputs that return to an earlier state are written again.
    """
    path = job.lakehouse.step_path(job.step, "evaluations.json")
    state: dict[str, Any] = {"application": uuid.uuid4().hex, "number": -1, "fingerprint": ""}
    if path.is_file():
        state = json.loads(path.read_text(encoding="utf-8"))
    if state["fingerprint"] != fingerprint:
        state |= {"number": state["number"] + 1, "fingerprint": fingerprint}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(path)
    frame = job.spark.createDataFrame([score.row() for score in scores], TABLES["evaluations"].schema)
    application = f"{job.step}-{state['application']}-evaluations"
    job.lakehouse.append(job.with_provenance(frame), "evaluations", application, state["number"])


def _needs(config: EvaluateConfig) -> Iterator[str | Path]:
    yield from config.models.values()
    if config.questions_from is not None:
        yield config.questions_from.path
    truth = config.synthesizer.truth if config.synthesizer is not None else None
    yield from (path for path in (config.questions, truth) if path is not None)


VERB = Verb(
    name="evaluate",
    config=EvaluateConfig,
    run=evaluate,
    reads=lambda config: () if config.synthesizer is None else ("syntheses",),
    writes=("evaluations",),
    needs=_needs,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
