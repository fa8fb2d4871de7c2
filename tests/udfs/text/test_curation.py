"""The steps of curation that look at one document."""

import pytest

from udfs.hashing import identifier
from udfs.text.curation import arm_of, clean, cut

RAW = {
    "doc_id": "d",
    "source": "s",
    "domain": "law",
    "uri": "a.jsonl#1",
    "license": "MIT",
    "text": " A  text\r\nof two lines. ",
}


def test_clean_document():
    assert clean(RAW, 5, 100, 1.0) == (
        "documents",
        {
            "doc_id": "d",
            "chunk": 0,
            "source": "s",
            "domain": "law",
            "language": None,
            "arm": "convert",
            "n_tokens": 0,
            "content_hash": identifier("A text\nof two lines."),
            "license": "MIT",
            "text": "A text\nof two lines.",
        },
    )


@pytest.mark.parametrize(
    ("text", "reason"), [(" \u200b\n", "empty_text"), ("abcd", "too_short"), ("x" * 101, "too_long"), ("x" * 100, None)]
)
def test_bounds(text, reason):
    table, row = clean({**RAW, "text": text}, 5, 100, 1.0)
    assert (table, row.get("reason")) == ("rejects" if reason else "documents", reason)
    if reason:
        assert row["stage"] == "curate" and row["record_id"] == "d" and "a.jsonl#1" in row["detail"]


def test_cut_keeps_everything_but_text_and_counts():
    _, document = clean({**RAW, "text": "one two three four five. " * 20}, 5, 1000, 0.0)
    chunks = cut(document, 30, lambda text: len(text.split()))
    assert [row["chunk"] for row in chunks] == list(range(len(chunks))) and len(chunks) > 2
    assert [row["n_tokens"] for row in chunks] == [len(row["text"].split()) for row in chunks]
    varied = ("chunk", "text", "n_tokens")
    assert all({**row, **{key: document[key] for key in varied}} == document for row in chunks)


def test_arm_is_a_function_of_the_id():
    ids = [identifier(number) for number in range(4000)]
    assert {arm_of(name, 0.0) for name in ids} == {"raw"} and {arm_of(name, 1.0) for name in ids} == {"convert"}
    converted = {share: {name for name in ids if arm_of(name, share) == "convert"} for share in (0.25, 0.5)}
    assert converted[0.25] < converted[0.5]  # a larger share only adds
    assert 0.46 < len(converted[0.5]) / len(ids) < 0.54
