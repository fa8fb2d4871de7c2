"""Files as a stream: one streaming frame of file names over all the folders a step reads.

All sources of a step are one file source, named by one path pattern (``/{data/a,data/b}``), rather than a union
of one stream per source: a checkpoint fixes the number of streams in it, so with a union a step could never be given
another source, and the limit of files per micro-batch would count for each source apart. Which source a file belongs
to is told by its path (``udfs.text.sources``). Only names, sizes and times travel; executors open the files.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from udfs.errors import ConfigError
from udfs.text.files import exists, plain_path
from udfs.text.sources import FileSource, TableSource

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from jobs.lakehouse.job import Job

SourceT = TypeVar("SourceT", bound=FileSource)

# Spark's own columns of `binaryFile`; a stream must be told them.
_SCHEMA = "path string, modificationTime timestamp, length bigint, content binary"
_ROOT = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+:(?://[^/]*)?)?(.*)$")
_PATTERN = re.compile(r"[\\{}\[\]*,]")


def located(sources: Sequence[SourceT], job: "Job") -> list[SourceT]:
    """The sources with their paths made absolute: a relative path is below the lakehouse.

    Raises:
        ConfigError: nothing is there.
        EnvironmentProblem: an object store's driver is not installed.
    """
    return [source.model_copy(update={"path": located_path(source.path, job)}) for source in sources]


def located_path(path: str, job: "Job") -> str:
    """The path made absolute.

    Raises:
        ConfigError: nothing is there.
        EnvironmentProblem: an object store's driver is not installed.
    """
    has_scheme = bool(_ROOT.match(path)[1])  # type: ignore[index]
    absolute = path if has_scheme else str(job.lakehouse.path(path))
    if not exists(absolute):
        raise ConfigError(
            f"steps.{job.step}: there is nothing at {absolute}. Give a file or a folder that is there; a relative path "
            "is below the lakehouse's root."
        )
    return absolute


def stream_table(source: TableSource, files_per_batch: int, job: "Job") -> "DataFrame":
    """A streaming frame of a Delta table's rows, as they are."""
    reader = job.spark.readStream.format("delta").option("skipChangeCommits", "true")
    reader = reader.option("maxFilesPerTrigger", files_per_batch)
    if source.table is not None:
        return reader.table(source.table)
    assert source.path is not None
    return reader.load(located_path(source.path, job))


def stream_files(sources: Sequence[FileSource], files_per_batch: int, job: "Job") -> "DataFrame":
    """A streaming frame with the columns ``path``, ``length`` (bytes) and ``modificationTime``, one row per file.

    Files whose names begin with ``_`` or ``.`` are not listed, as everywhere in Spark. Nor are those that no source's
    ``glob`` fits, and folders of the tuning collection that are not asked for: a file that was listed counts as read,
    also for a source that is given later.

    Args:
        sources: as ``located`` gives them.
        files_per_batch: files in a micro-batch.

    Raises:
        ConfigError: the sources lie in different file systems.
    """
    reader = job.spark.readStream.format("binaryFile").schema(_SCHEMA).option("recursiveFileLookup", "true")
    # Spark passes over files a week older than the newest one it has seen; a copy keeps the time of its original.
    reader = reader.option("maxFilesPerTrigger", files_per_batch).option("maxFileAge", "36500d")
    reader = reader.option("pathGlobFilter", name_pattern([source.glob for source in sources]))
    pattern = path_pattern([folder for source in sources for folder in source.folders()])
    # Without `content` among the columns Spark does not open the files.
    return reader.load(pattern).select("path", "length", "modificationTime")


def path_pattern(paths: Sequence[str]) -> str:
    """One Hadoop path pattern for all the paths.

    Raises:
        ConfigError: they lie in different file systems.
    """
    roots, names = set(), []
    for path in _outermost(paths):
        match = _ROOT.match(path)
        assert match is not None, "the expression matches any path"
        roots.add((match[1] or "").replace("file://", "file:"))
        names.append(match[2].strip("/"))
    if len(roots - {"file:"} if "" in roots else roots) > 1:
        listed = ", ".join(sorted(roots))
        raise ConfigError(
            f"the sources of one step must lie in one file system, not in {listed}. Use one step for each."
        )
    root = max(roots, default="")
    # `?` for each character that means something in a pattern: Hadoop does not take all of them escaped inside braces.
    # What else it matches belongs to no source and is left alone.
    escaped = [_PATTERN.sub("?", name) for name in names]
    # The slash stands before the brace, or Spark takes the pattern for a relative one.
    return f"{root}/{escaped[0]}" if len(escaped) == 1 else f"{root}/{{{','.join(escaped)}}}"


def name_pattern(globs: Sequence[str]) -> str:
    """One Hadoop pattern that takes every file name that one of the shell patterns takes; it may take more."""
    # Hadoop reads brackets and braces its own way.
    plain = [re.sub(r"[^\w.*?-]", "?", re.sub(r"\[.*\]", "*", glob), flags=re.ASCII) for glob in globs]
    return "*" if "*" in plain else f"{{{','.join(sorted(set(plain)))}}}"


def _outermost(paths: Sequence[str]) -> list[str]:
    """The paths without repetitions and without those below another one, whose files would be listed twice."""
    plain = {plain_path(path).rstrip("/"): path for path in paths}
    return [
        path
        for name, path in sorted(plain.items())
        if not any(name.startswith(f"{other}/") for other in plain if other != name)
    ]
