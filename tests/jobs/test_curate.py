"""raw_documents into documents, through the stage runner."""

import json
from collections import Counter

import pytest

from udfs.config import build
from udfs.errors import ConfigError
from udfs.hashing import identifier
from udfs.text.curation import arm_of
from udfs.tokens import load_tokenizer, train_tokenizer


@pytest.fixture
def settings(lakehouse):
    train_tokenizer(["Some sentences to learn from, with words in them. "], 300).save(lakehouse.path("tokenizer"))
    return {
        "tokenizer": "tokenizer",
        "chunk_tokens": 64,
        "convert_share": 0.5,
        "min_characters": 10,
        "max_characters": 9000,
    }


def _ingest(lakehouse, run_verb, name, texts):
    path = lakehouse.path("raw", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    run_verb("ingest", {"sources": [{"path": "raw", "name": "test", "domain": "none"}]})


def _documents(lakehouse):
    return [row.asDict() for row in lakehouse.read("documents").collect()]


def test_clean_unique_chunked(lakehouse, run_verb, settings):
    long = "\n\n".join(f"Paragraph {n} has a sentence. It has another one." for n in range(20))
    texts = [
        "A  plain\r\ntext\x00 that is cafe\u0301.",
        "A plain\ntext that is café.",
        "short",
        " \u200b ",
        "x" * 9001,
        long,
    ]
    _ingest(lakehouse, run_verb, "a.jsonl", texts)
    counts = run_verb("curate", settings)
    rows = _documents(lakehouse)
    tokenizer = load_tokenizer(lakehouse.path("tokenizer"))
    assert all(row["n_tokens"] == len(tokenizer.encode(row["text"])) <= 64 for row in rows)
    (plain,) = [row for row in rows if row["text"].startswith("A plain")]
    assert plain["text"] == "A plain\ntext that is café." and plain["content_hash"] == identifier(plain["text"])
    assert plain["doc_id"] == min(identifier(text) for text in texts[:2])
    chunks = sorted((row for row in rows if row is not plain), key=lambda row: row["chunk"])
    assert [row["chunk"] for row in chunks] == list(range(len(chunks))) and len(chunks) > 3
    assert "".join("".join(row["text"] for row in chunks).split()) == "".join(long.split())
    assert {(row["doc_id"], row["arm"]) for row in chunks} == {(identifier(long), arm_of(identifier(long), 0.5))}
    rejects = lakehouse.read("rejects").filter("stage = 'curate'").collect()
    assert Counter(row["reason"] for row in rejects) == {"duplicate": 1, "too_short": 1, "empty_text": 1, "too_long": 1}
    assert counts["rejects"] == 4 and counts["documents"] == len(rows)

    # A later copy in another spelling is found among the documents that are there.
    _ingest(lakehouse, run_verb, "b.jsonl", ["A plain \n text that is café.", "Something new to read."])
    counts = run_verb("curate", settings)
    assert counts["documents"] == 1 and counts["rejects/duplicate"] == 1


def test_settings_are_checked(run_verb, settings):
    from jobs.curate import CurateConfig

    with pytest.raises(ConfigError, match="convert_share"):
        build(CurateConfig, {**settings, "convert_share": 1.5}, "steps.curate")
    with pytest.raises(ConfigError, match="min_characters 10 exceeds max_characters 5"):
        build(CurateConfig, {**settings, "max_characters": 5}, "steps.curate")
    with pytest.raises(ConfigError, match="no tokenizer at"):
        run_verb("curate", {**settings, "tokenizer": "nowhere"})
