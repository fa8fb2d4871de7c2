"""Rows of raw_documents."""

import json

from udfs.hashing import identifier
from udfs.text.raw import raw_documents
from udfs.text.sources import TextSource


def _write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_row(tmp_path):
    path = _write(
        tmp_path / "news" / "shard" / "0.jsonl", {"text": " A text. ", "title": "T", "tags": ["x"], "url": None}
    )
    source = TextSource(path=str(tmp_path), domain="economy", license="CC0-1.0")
    assert list(raw_documents(f"file:{path}", [source])) == [
        (
            "raw_documents",
            {
                "doc_id": identifier(" A text. "),
                "source": "news",
                "domain": "economy",
                "uri": f"{path}#1",
                "text": " A text. ",
                "metadata": {"title": "T", "tags": '["x"]'},
                "license": "CC0-1.0",
            },
        )
    ]


def test_domain_from_record_then_from_name(tmp_path):
    path = _write(tmp_path / "0.jsonl", {"body": "one", "domain": "law"}, {"body": "two"})
    rows = [row for _, row in raw_documents(path, [TextSource(path=str(tmp_path), name="mine", text_field="body")])]
    assert [row["domain"] for row in rows] == ["law", "mine"]


def test_records_without_text_are_rejected_with_what_they_hold(tmp_path):
    path = _write(
        tmp_path / "0.jsonl", {"content": "x"}, {"text": " \n"}, {"text": None}, {"text": ["a"]}, {"text": "b"}
    )
    found = list(raw_documents(path, [TextSource(path=str(tmp_path))]))
    assert [table for table, _ in found] == ["rejects"] * 4 + ["raw_documents"]
    assert all(row["reason"] == "missing_text" and row["stage"] == "ingest" for _, row in found[:4])
    assert found[0][1]["detail"] == "no field 'text'; the fields are content"
    assert found[0][1]["record_id"] == f"{path}#1" and found[0][1]["payload"] == '{"content": "x"}'


def test_file_of_no_source_and_of_two(tmp_path):
    path = _write(tmp_path / "0.jsonl", {"a": "one", "b": "two"})
    sources = [TextSource(path=str(tmp_path), name=field, text_field=field) for field in ("a", "b")]
    assert [row["text"] for _, row in raw_documents(path, sources)] == ["one", "two"]
    assert list(raw_documents(path, [TextSource(path=str(tmp_path), glob="*.csv")])) == []


def test_published_set_gives_its_texts(tmp_path):
    file = tmp_path / "squad.json"
    paragraph = {"context": "Paris is in France.", "qas": [{"question": "Where?", "answers": []}]}
    file.write_text(json.dumps({"data": [{"title": "Paris", "paragraphs": [paragraph]}]}), encoding="utf-8")
    source = TextSource(path=str(file), name="squad", format="squad", domain="encyclopaedia")
    found = list(raw_documents(str(file), [source]))
    (row,) = [row for table, row in found if table == "raw_documents"]
    assert row["text"] == "Paris is in France." and row["metadata"] == {"title": "Paris"}
    assert [row["reason"] for table, row in found if table == "rejects"] == ["no_pairs"]
