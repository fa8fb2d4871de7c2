"""Rows out of Arrow batches."""

import datetime

import pyarrow as pa

from jobs.lakehouse.rows import rows_of


def test_rows_are_those_of_pyarrow() -> None:
    pair = pa.struct([("instruction", pa.string()), ("score", pa.float64()), ("tags", pa.list_(pa.string()))])
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("round", pa.int32()),
            ("flag", pa.bool_()),
            ("text", pa.string()),
            ("pairs", pa.list_(pair)),
            ("engine", pa.struct([("name", pa.string()), ("versions", pa.map_(pa.string(), pa.string()))])),
            ("raw", pa.binary()),
            ("when", pa.timestamp("us", "UTC")),
        ]
    )
    one = {"instruction": "Why?", "score": 0.5, "tags": ["a", None]}
    rows = [
        {
            "id": number,
            "round": None if number == 2 else number,
            "flag": number % 2 == 0,
            "text": None if number == 3 else f"Straße {number} 河",
            "pairs": [None, [], [one], [one, None, {**one, "tags": None, "score": None}]][number % 4],
            "engine": None if number == 1 else {"name": "x", "versions": [("python", "3")]},
            "raw": b"\xff",
            "when": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        }
        for number in range(9)
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    for part in (batch, batch.slice(2, 5), batch.slice(0, 0)):
        assert list(rows_of(part)) == part.to_pylist()
