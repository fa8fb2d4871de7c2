"""All readers at once: what they share, and the published files where they are at hand."""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from udfs.rejects import REASONS
from udfs.synthesis.formats import PairFormat, compose_answer, compose_question, decompose, recognise
from udfs.text.collection import DATASETS
from udfs.text.recast import READERS, RecastOptions
from udfs.text.sources import TuningSource
from udfs.text.tuning import tuning_rows

FIELDS = {
    "text": {"kind", "text", "title", "metadata"},
    "example": {"kind", "dataset", "context", "QA_list"},
    "instruction": {"kind", "question", "response"},
    "reject": {"kind", "reason", "detail", "payload"},
}
SQUAD = ["data", "paragraphs", "context", "qas", "question", "answers", "text", "answer_start", "title"]
PUBMEDQA = ["QUESTION", "CONTEXTS", "LABELS", "LONG_ANSWER", "final_decision"]
TATQA = ["table", "order", "questions", "answer", "scale", "derivation"]
OTHERS = ["options", "rationale", "correct", "instruction", "instances", "input", "output"]
KEYS = st.sampled_from(SQUAD + PUBMEDQA + TATQA + OTHERS)
LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "yes", "A", "A)x", "\ud800", "x y"])
)
JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6))


def check(record):
    """A record has the fields of its kind, and everything in it can be stored."""
    assert set(record) == FIELDS[record["kind"]]
    assert record["kind"] != "reject" or record["reason"] in REASONS
    json.dumps(record, ensure_ascii=False).encode("utf-8")


@given(JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_no_content_makes_a_reader_raise(write, content):
    path = write("questions/a-questions.csv", json.dumps(content))
    write("stories/a-story.csv", json.dumps(content))
    for name in READERS:
        for record in READERS[name](path, RecastOptions(window=20)):
            check(record)


def read(name, paths, **options):
    records = [record for path in paths for record in READERS[name](str(path), RecastOptions(**options))]
    for record in records:
        check(record)
    return records


def counts(records):
    kinds = Counter(record["kind"] for record in records)
    kinds["pairs"] = sum(len(record["QA_list"]) for record in records if record["kind"] == "example")
    return dict(kinds)


def formats(records):
    pairs = [pair for record in records if record["kind"] == "example" for pair in record["QA_list"]]
    for pair in pairs:
        parts = decompose(pair["Q"], pair["A"])
        assert compose_question(parts.question, parts.options, parts.cue) == pair["Q"]
        assert compose_answer(parts.final, parts.reasoning) == pair["A"]
    return dict(Counter(recognise(pair["Q"], pair["A"]) for pair in pairs))


BOTH = PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "pattern", "expected", "found"),
    [
        ("squad", "covid_qa/covidQA.json", {"text": 64, "example": 64, "pairs": 663}, {PairFormat.FREE_FORM: 663}),
        ("squad", "xquad/xquad.en.json", {"text": 120, "example": 120, "pairs": 632}, {PairFormat.FREE_FORM: 632}),
        ("squad", "xquad/xquad.zh.json", {"text": 120, "example": 120, "pairs": 632}, {PairFormat.FREE_FORM: 632}),
        (
            "pubmedqa_no_opt",
            "pubmedqa/ori_pqal.json",
            {"text": 500, "example": 500, "pairs": 500},
            {PairFormat.FREE_FORM: 500},
        ),
        ("pubmedqa_yes_opt", "pubmedqa/ori_pqal.json", {"text": 500, "example": 500, "pairs": 500}, {BOTH: 500}),
        ("aqua_rat", "aqua_rat/dev.json", {"example": 254, "pairs": 254}, {BOTH: 254}),
        ("wikitext", "wikitext-2/valid.txt", {"text": 60, "pairs": 0}, {}),
        ("seed_tasks", "instructions/seed_tasks.jsonl", {"instruction": 175, "pairs": 0}, {}),
    ],
)
def test_published_counts(real_data, name, pattern, expected, found):
    records = read(name, [real_data / pattern])
    assert counts(records) == expected
    assert formats(records) == found


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "format", "name", "dataset", "pairs"),
    [
        ("covid_qa/covidQA.json", "squad", "COVID_QA", "COVID_QA", 663),
        ("xquad/xquad.en.json", "squad", "squad", "squad", 632),
        ("xquad/xquad.zh.json", "squad", "squad", "squad", 632),
        ("pubmedqa/ori_pqal.json", "pubmedqa_no_opt", None, "PubMedQA_no_opt", 500),
        ("pubmedqa/ori_pqal.json", "pubmedqa_yes_opt", None, "PubMedQA_yes_opt", 500),
        ("aqua_rat/dev.json", "aqua_rat", None, "AQUA_RAT_yes_opt", 254),
    ],
)
def test_published_sets_have_their_names_in_the_collection(real_data, path, format, name, dataset, pairs):
    source = TuningSource(path=str(real_data / path), kind="examples", format=format, name=name)
    rows = list(tuning_rows(str(real_data / path), [source]))
    assert {table for table, _ in rows} == {"tuning_examples"}
    assert {row["dataset"] for _, row in rows} == {dataset} and dataset in DATASETS
    assert sum(row["n_pairs"] for _, row in rows) == pairs


@pytest.mark.real_data
def test_published_counts_of_fairytaleqa(real_data):
    paths = sorted((real_data / "fairytaleqa/questions").glob("*.csv"))
    records = read("fairytaleqa", paths)
    found = counts(records)
    assert (len(paths), found["text"], found["pairs"], found.get("reject")) == (232, 232, 8548, None)


@pytest.mark.real_data
def test_published_counts_of_tatqa(real_data):
    records = read("tatqa", [real_data / "tatqa/tatqa_dataset_dev.json"])
    assert counts(records) == {"text": 278, "example": 278, "pairs": 1668}
    assert set(formats(records)) == {PairFormat.FREE_FORM, PairFormat.CHAIN_OF_THOUGHT}


@pytest.mark.real_data
def test_a_window_loses_no_question_and_keeps_every_answer_in_sight(real_data):
    records = read("squad", [real_data / "covid_qa/covidQA.json"], window=180)
    examples = [record for record in records if record["kind"] == "example"]
    assert counts(records)["pairs"] == 663
    assert all(pair["A"] in record["context"] for record in examples for pair in record["QA_list"])
    assert max(len(record["context"].split()) for record in examples) <= 180 + 150  # the longest answer has 144 words


@pytest.mark.real_data
def test_literal_unknown_words_stay(real_data):
    path = real_data / "wikitext-2/valid.txt"
    kept = sum(record["text"].count("<unk>") for record in read("wikitext", [path]))
    assert kept == path.read_text(encoding="utf-8").count("<unk>")
