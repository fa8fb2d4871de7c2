"""Which files belong to a source, and what it is called."""

import pytest

from udfs.config import build
from udfs.errors import ConfigError
from udfs.text.recast import KINDS, READERS
from udfs.text.sources import FileSource, TableSource, TextSource, TuningSource


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


@pytest.mark.parametrize(
    ("source", "settings"),
    [(TextSource, {}), (TableSource, {"name": "a"}), (TuningSource, {"kind": "examples"})],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(source, settings):
    with pytest.raises(ConfigError, match=r"path: must not hold a password.*//\*\*\*@bucket") as refused:
        build(source, {**settings, "path": "s3a://me:secret@bucket/raw"}, "source")
    assert "secret" not in str(refused.value)


def test_bad_settings_are_explained():
    with pytest.raises(ConfigError, match=r"format: must be one of auto, jsonl.*squad"):
        build(FileSource, {"path": "x", "format": "jsnl"}, "source")
    with pytest.raises(ConfigError, match="`options` applies to the formats"):
        build(FileSource, {"path": "x", "options": {"part": [0.0, 0.5]}}, "source")
    with pytest.raises(ConfigError, match="window` applies to the format squad alone"):
        build(FileSource, {"path": "x", "format": "tatqa", "options": {"window": 50}}, "source")


@pytest.mark.parametrize("name", READERS)
def test_a_source_asks_a_published_set_for_what_it_holds(name):
    assert KINDS.keys() == READERS.keys()
    kinds = {"examples": "example", "instructions": "instruction", "conversations": "conversation"}
    for kind, record in kinds.items():
        tree = {"path": "x", "format": name, "kind": kind}
        if record in KINDS[name]:
            assert build(TuningSource, tree, "source").kind == kind
        else:
            with pytest.raises(ConfigError, match=f"{name!r} holds no {kind}, but"):
                build(TuningSource, tree, "source")
    if "text" in KINDS[name]:
        assert build(TextSource, {"path": "x", "format": name}, "source").is_recast
    else:
        with pytest.raises(ConfigError, match="holds no texts"):
            build(TextSource, {"path": "x", "format": name}, "source")


@pytest.mark.parametrize("below", ["squad/0.jsonl", "squad/shard/0.jsonl", "squad/shard/train/0.jsonl"])
def test_a_dataset_of_the_collection_is_all_of_its_folder(below):
    source = TuningSource(path="/data/collection/", kind="examples", collection=True)
    assert source.takes(f"file:/data/collection/{below}") and source.name_of(f"/data/collection/{below}") == "squad"
    assert not source.takes("/data/collection/README.jsonl") and not source.takes("/data/collection/other/0.jsonl")
