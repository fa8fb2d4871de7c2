"""Files of several folders as one stream."""

import pytest

from jobs.lakehouse.files import located, name_pattern, path_pattern, stream_files
from jobs.lakehouse.job import Job
from udfs.errors import ConfigError
from udfs.text.sources import FileSource


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        (["/data/a"], "/data/a"),
        (["/data/a", "/data/b/c"], "/{data/a,data/b/c}"),
        (["/data/a", "/data/a/", "/data/a/b", "file:///data/a"], "file:/data/a"),
        (["s3a://bucket/a", "s3a://bucket/b"], "s3a://bucket/{a,b}"),
        (["file:/a", "/b"], "file:/{a,b}"),
        (["/data/a,b[1]{x}"], "/data/a?b?1??x?"),
    ],
)
def test_path_pattern(paths, pattern):
    assert path_pattern(paths) == pattern


@pytest.mark.parametrize(
    ("globs", "pattern"),
    [
        (["*.txt", "*"], "*"),
        (["*.txt"], "{*.txt}"),
        (["b-?.txt", "a*"], "{a*,b-?.txt}"),
        (["[!ab]{c,d}[e].txt"], "{*.txt}"),
        (["é,[x"], "{???x}"),
    ],
)
def test_name_pattern(globs, pattern):
    assert name_pattern(globs) == pattern


def test_sources_of_two_stores_are_refused():
    with pytest.raises(ConfigError, match="one file system"):
        path_pattern(["s3a://bucket/a", "s3a://other/a"])


def test_missing_source_is_named(lakehouse):
    job = Job(lakehouse, "ingest", FileSource(path="x"), lakehouse._session)
    with pytest.raises(ConfigError, match=r"steps.ingest: there is nothing at .*/lake/raw\."):
        located([FileSource(path="raw")], job)


def test_names_with_anything_in_them_are_listed_once(lakehouse, spark):
    """Spaces, percent signs, pattern characters, letters of any script; folders in folders; no hidden files."""
    job = Job(lakehouse, "ingest", FileSource(path="x"), lakehouse._session)
    folders = ["raw/a b%20", "raw/{c,d}[e]*", "deep/é世界/shard"]
    names = ["x.jsonl", "50%.txt", "a,b.json"]
    for folder in folders:
        lakehouse.path(folder).mkdir(parents=True)
        for name in [*names, "_SUCCESS", ".hidden"]:
            (lakehouse.path(folder) / name).write_text("content", encoding="utf-8")
    sources = located([FileSource(path="raw/a b%20"), FileSource(path="raw/{c,d}[e]*"), FileSource(path="deep")], job)
    stream = stream_files(sources, 4, job)
    query = (
        stream.writeStream.format("memory")
        .queryName("listed")
        .option("checkpointLocation", str(lakehouse.path("checkpoint")))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    found = [row["path"] for row in spark.table("listed").collect()]
    assert len(found) == len(folders) * len(names) == len(set(found))
    assert all(sum(source.takes(path) for source in sources) == 1 for path in found)
    assert {row["length"] for row in spark.table("listed").collect()} == {7}
    assert len([batch for batch in query.recentProgress if batch["numInputRows"]]) == 3  # four files at a time
    assert "content" not in stream.columns
