"""Which files belong to a source, and what it is called."""

import pytest

from udfs.config import build
from udfs.errors import ConfigError
from udfs.text.sources import FileSource


@pytest.mark.parametrize(
    ("path", "glob", "uri", "taken"),
    [
        ("/data/raw", "*", "file:///data/raw/x/shard/0.jsonl", True),
        ("/data/raw/", "*", "file:/data/raw/0.jsonl", True),
        ("/data/raw", "*", "file:/data/raw2/0.jsonl", False),
        ("/data/a.jsonl", "*", "file:/data/a.jsonl", True),
        ("/data", "*-questions.csv", "/data/train/questions/x-questions.csv", True),
        ("/data", "*-questions.csv", "/data/train/stories/x-story.csv", False),
        ("s3a://bucket/raw", "*.jsonl", "s3://bucket/raw/0.jsonl", True),
        ("dbfs:/Volumes/c/s/v", "*", "/Volumes/c/s/v/0.txt", True),
    ],
)
def test_takes(path, glob, uri, taken):
    assert FileSource(path=path, glob=glob).takes(uri) is taken


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/data/squad/shard/00000.jsonl", "squad"),
        ("file:/data/squad/00000.jsonl", "squad"),
        ("/shard/0.jsonl", "shard"),
        ("s3://bucket/squad/shard/0.jsonl", "squad"),
        ("/data/general-corpora/part-0/shard/00000.txt", "general-corpora"),
        ("/data/part-0/00000.txt", "part-0"),
    ],
)
def test_name_of_folder(uri, name):
    assert FileSource(path="/").name_of(uri) == name
    assert FileSource(path="/", name="given").name_of(uri) == "given"


def test_bad_settings_are_explained():
    with pytest.raises(ConfigError, match=r"format: must be one of auto, jsonl.*squad"):
        build(FileSource, {"path": "x", "format": "jsnl"}, "source")
    with pytest.raises(ConfigError, match="`options` applies to the formats"):
        build(FileSource, {"path": "x", "options": {"part": [0.0, 0.5]}}, "source")
