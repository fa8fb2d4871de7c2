import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.evaluate import VERB, EvaluateConfig, SynthesizerConfig, _written_questions
from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from tests.tiny_model import write_tiny_model
from udfs.almanac.files import write
from udfs.almanac.world import AlmanacConfig
from udfs.config import build
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.synthesis.pairs import make_pair

RunVerb = Callable[..., dict[str, float]]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def almanac(tmp_path: Path) -> Path:
    write(AlmanacConfig(raw_entities=6, tuning_contexts=12, test_questions=8, instructions=0), tmp_path / "almanac")
    return tmp_path / "almanac"


def _append_syntheses(lakehouse: Lakehouse, almanac: Path) -> dict[str, int]:
    """Chains of two with the almanac's own pairs: one answer spoiled, one question unknown, one piece no pair."""
    from pyspark.sql import functions as F

    from jobs.lakehouse.tables import SYNTHESES

    rows = []
    contexts = [example for path in sorted((almanac / "qa").rglob("*.jsonl")) for example in _lines(path)][:4]
    for index, example in enumerate(contexts):
        pairs = [dict(make_pair(pair["Q"], pair["A"])) for pair in example["QA_list"]]
        if index == 0:
            pairs[0]["response"] += " Zzz"
            pairs[1]["instruction"] = "What else? " + pairs[1]["instruction"]
        rows.append(
            {
                "chain_id": f"chain{index // 2}",
                "round": index % 2,
                "chain_length": 2,
                "doc_id": f"doc{index}",
                "chunk": 0,
                "source": "almanac",
                "domain": "people",
                "sample": 0,
                "carried": [],
                "status": "ok",
                "finish_reason": "stop",
                "n_prompt_tokens": 1,
                "n_cached_tokens": 0,
                "n_completion_tokens": 1,
                "pairs": pairs,
                "rejected_pairs": [{"text": "<QUE>", "reason": "truncated"}] if index == 1 else [],
                "engine": {"name": "test", "versions": {}},
                "context": example["context"],
                "completion": "",
            }
        )
    frame = lakehouse._session().createDataFrame(rows, SYNTHESES.schema)
    for name in ("step", "config_hash", "run_id"):
        frame = frame.withColumn(name, F.lit("test"))
    lakehouse.append(frame.withColumn("written_at", F.current_timestamp()), "syntheses", "test", 0)
    return {"documents": len(rows), "pairs": sum(len(row["pairs"]) for row in rows)}


def test_synthesizer_is_judged_by_the_truth(run_verb: RunVerb, lakehouse: Lakehouse, almanac: Path) -> None:
    expected = _append_syntheses(lakehouse, almanac)
    settings = {"synthesizer": {"truth": str(almanac / "truth/facts.jsonl")}}

    counts = run_verb("evaluate", settings)

    pairs = expected["pairs"]
    assert counts["synthesizer/documents"] == 4
    assert counts["synthesizer/chains"] == 2
    assert counts["synthesizer/pairs"] == pairs
    assert counts["synthesizer/share_well_formed"] == pytest.approx(pairs / (pairs + 1))
    assert counts["synthesizer/share_right"] == pytest.approx((pairs - 2) / pairs)
    assert counts["synthesizer/share_judged"] == pytest.approx((pairs - 1) / pairs)
    assert counts["synthesizer/share_grounded"] == pytest.approx((pairs - 1) / pairs)
    assert counts["synthesizer on almanac/share_well_formed"] == counts["synthesizer/share_well_formed"]
    assert counts["synthesizer in free_form/share_right"] == 1.0
    assert counts["synthesizer in chain_of_thought/share_right"] < 1.0


def test_rows_are_written_once_for_each_state_of_the_inputs(
    run_verb: RunVerb, lakehouse: Lakehouse, almanac: Path
) -> None:
    _append_syntheses(lakehouse, almanac)
    with_truth = {"synthesizer": {"truth": str(almanac / "truth/facts.jsonl")}}

    def rows() -> int:
        return lakehouse.read("evaluations").filter("metric = 'pairs'").count()

    for settings, expected in ((with_truth, 1), (with_truth, 1), ({"synthesizer": {}}, 2), (with_truth, 3)):
        run_verb("evaluate", settings)
        assert rows() == expected
    stored = {row["metric"]: row for row in lakehouse.read("evaluations").filter("subject = 'synthesizer'").collect()}
    assert stored["share_right"]["low"] < stored["share_right"]["value"] < stored["share_right"]["high"]
    assert stored["documents"]["low"] is None


def test_models_are_compared_question_by_question(
    run_verb: RunVerb, lakehouse: Lakehouse, almanac: Path, tmp_path: Path
) -> None:
    questions = almanac / "test/facts.jsonl"
    texts = [f"{question['prompt']} {question['answer']}" for question in _lines(questions)]
    models = {
        name: str(write_tiny_model(tmp_path / name, texts, seed)) for seed, name in enumerate(("vanilla", "instruct"))
    }
    settings = {"models": models, "questions": str(questions), "treatment": "instruct", "device": "cpu"}

    counts = run_verb("evaluate", settings)
    files = sorted(lakehouse.path("evaluations", "evaluate").iterdir())
    written = [file.stat().st_mtime_ns for file in files]
    again = run_verb("evaluate", settings)

    assert again == counts
    assert counts["chance/acc"] == 0.25
    assert [file.stat().st_mtime_ns for file in files] == written
    assert counts["instruct - vanilla/acc"] == pytest.approx(counts["instruct/acc"] - counts["vanilla/acc"])
    by_model = {json.loads(file.read_text(encoding="utf-8"))["name"]: file for file in files}
    items = json.loads(by_model["instruct"].read_text(encoding="utf-8"))["items"]
    assert counts["instruct/acc"] == pytest.approx(sum(item["acc"] for item in items) / len(items))
    row = lakehouse.read("evaluations").filter("subject = 'instruct - vanilla' and metric = 'acc'").collect()[0]
    assert (row["n"], row["task"]) == (8, "held_out_questions")
    assert row["low"] <= row["value"] <= row["high"]


def test_a_model_that_cannot_be_scored_is_named(run_verb: RunVerb, almanac: Path, tmp_path: Path) -> None:
    questions = str(almanac / "test/facts.jsonl")
    with pytest.raises(EnvironmentProblem, match=r"model 'ghost': no \*\.safetensors"):
        run_verb("evaluate", {"models": {"ghost": str(tmp_path / "none")}, "questions": questions})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EnvironmentProblem, match=r"scoring broken failed with exit code 1:\s+error: no model at"):
        run_verb("evaluate", {"models": {"broken": str(tmp_path / "broken")}, "questions": questions})


def test_missing_questions_are_a_configuration_error(run_verb: RunVerb, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no questions at"):
        run_verb("evaluate", {"models": {"m": str(tmp_path)}, "questions": "none.jsonl"})


def test_questions_of_a_published_set(tmp_path: Path) -> None:
    answers = ["red", "green", "blue", "grey"]
    asked = [
        {"question": f"What is {number}?", "answers": [{"text": answer, "answer_start": 0}]}
        for number, answer in enumerate(answers)
    ]
    article = {"paragraphs": [{"context": " ".join(answers), "qas": asked}]}
    (tmp_path / "set.json").write_text(json.dumps({"data": [article]}), encoding="utf-8")
    source = {"path": str(tmp_path / "set.json"), "format": "squad", "name": "colours"}
    config = build(EvaluateConfig, {"models": {"m": "m"}, "questions_from": source}, "evaluate")
    assert config.questions_from is not None
    lakehouse = Lakehouse(LakehouseConfig(root=str(tmp_path / "lake")), pytest.fail)
    path = _written_questions(config.questions_from, Job(lakehouse, "evaluate", config, pytest.fail))
    written = _lines(path)
    assert path == lakehouse.path("evaluations", "evaluate", "questions.jsonl")
    assert [question["answer"] for question in written] == answers
    assert {question["domain"] for question in written} == {"colours"}


def test_a_published_set_that_cannot_be_read_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "set.json").write_text('{"data": [{"para', encoding="utf-8")
    source = {"path": str(tmp_path / "set.json"), "format": "squad", "name": "colours"}
    config = build(EvaluateConfig, {"models": {"m": "m"}, "questions_from": source}, "evaluate")
    assert config.questions_from is not None
    lakehouse = Lakehouse(LakehouseConfig(root=str(tmp_path / "lake")), pytest.fail)
    with caplog.at_level("INFO", "ipt"), pytest.raises(DataError, match="no held-out question"):
        _written_questions(config.questions_from, Job(lakehouse, "evaluate", config, pytest.fail))
    assert "set.json: 1 records of it were not read, the first: invalid_json" in caplog.text


def test_only_a_synthesizer_that_is_judged_reads_its_table() -> None:
    assert VERB.inputs(EvaluateConfig(synthesizer=SynthesizerConfig())) == ("syntheses",)
    assert VERB.inputs(EvaluateConfig(models={"m": Path("m")}, questions=Path("q"))) == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nothing to score"),
        ({"models": {"a": "x"}}, "no `questions`"),
        ({"models": {"a": "x"}, "questions": "q", "treatment": "b"}, "'b' is not one of the models: a"),
        ({"models": {"a - b": "x"}, "questions": "q"}, "'a - b' means something else"),
        ({"models": {"chance": "x"}, "questions": "q"}, "'chance' means something else"),
        *(
            ({"models": {"b": "y", name: "x"}, "questions": "q"}, "begins the name of a file.* not \\['[^b]")
            for name in ("../../a", "a/b", "..", "-a", "a" * 101)
        ),
        ({"modles": {}}, "Did you mean 'models'"),
        ({"models": {"a": "x"}, "questions_from": {"path": "q", "format": "json"}}, "format` of a published set"),
    ],
)
def test_configuration_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(EvaluateConfig, settings, "evaluate")
