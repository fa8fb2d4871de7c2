"""File names of Spark, object stores, and compressed streams."""

import gzip

import fsspec
import pytest

from udfs.errors import EnvironmentProblem
from udfs.text.files import exists, is_remote, open_bytes, plain_path
from udfs.text.readers import read_records


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/a.jsonl", "/data/a.jsonl"),
        ("file:/data/a b.jsonl", "/data/a b.jsonl"),
        ("file:///data/a%20b.jsonl", "/data/a%20b.jsonl"),  # Spark does not escape names
        ("dbfs:/Volumes/main/raw/a.jsonl", "/Volumes/main/raw/a.jsonl"),
        ("dbfs:/mnt/raw/a.jsonl", "/dbfs/mnt/raw/a.jsonl"),
        ("s3a://bucket/key", "s3://bucket/key"),
        ("abfss://c@account.dfs.core.windows.net/x", "abfss://c@account.dfs.core.windows.net/x"),
        ("relative/a:b.txt", "relative/a:b.txt"),
    ],
)
def test_plain_path(uri, expected):
    assert plain_path(uri) == expected
    assert is_remote(uri) == ("://" in expected)


def test_object_store_is_read_through_fsspec():
    """fsspec's own in-memory store stands for any driver."""
    with fsspec.open("memory://bucket/a.jsonl.gz", "wb") as stream:
        stream.write(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
    assert [item.fields["text"] for item in read_records("memory://bucket/a.jsonl.gz")] == ["a", "b"]
    assert exists("memory://bucket/a.jsonl.gz") and not exists("memory://bucket/none")
    (missing,) = read_records("memory://bucket/none.jsonl")
    assert missing["reason"] == "unreadable_file"


def test_missing_driver_is_the_environments_problem():
    with pytest.raises(EnvironmentProblem, match="Install the fsspec driver"):
        exists("unheardof://bucket/a")
    with pytest.raises(EnvironmentProblem):
        list(read_records("unheardof://bucket/a.jsonl"))


def test_closing_closes_the_file_below(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"content"))
    with open_bytes(str(path)) as stream:
        assert stream.read(3) == b"con"
        below = stream.raw._raw
    assert below.closed
