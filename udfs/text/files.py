"""Opening the files that Spark lists, from an executor: plain, gzip or zstd, on a disk, a volume or an object store.

Spark names files its own way (``file:///data/a.jsonl``, ``dbfs:/Volumes/...``, ``s3a://...``); executors read them
with Python. ``DAMAGED`` lists what is raised when a file cannot be read to its end; an ``OSError`` that is not the
file's own fault (a store that does not answer, a full disk) is left to Spark's task retry.
"""

import errno
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import zstandard

from udfs.errors import EnvironmentProblem
from udfs.shards.store import reaching

COMPRESSIONS = (".gz", ".zst")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):(/.*)$")
_INPUT = 1 << 12  # compressed bytes taken at a time: little, for a fault costs what was taken with it
_BUFFER = 1 << 16
_LOST_FOR_GOOD = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG)


def plain_path(uri: str) -> str:
    """The name by which Python opens what Spark calls ``uri``.

    ``file:`` falls away, ``dbfs:`` becomes the mount that Databricks gives every worker, ``s3a``/``s3n`` become ``s3``;
    anything else stays. Two names of one file give the same result.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return uri
    scheme, rest = match.group(1).lower(), match.group(2)
    if scheme == "file":
        return "/" + rest.lstrip("/")
    if scheme == "dbfs":
        rest = "/" + rest.lstrip("/")
        return rest if rest.startswith("/Volumes/") else f"/dbfs{rest}"
    if scheme in {"s3a", "s3n"}:
        return f"s3:{rest}"
    return uri


def is_remote(uri: str) -> bool:
    """Whether the file lies in an object store, read through fsspec, rather than on a mounted disk."""
    return "://" in plain_path(uri)


def open_raw(uri: str) -> IO[bytes]:
    """The file's bytes as stored, seekable.

    Raises:
        OSError: it cannot be opened.
        EnvironmentProblem: the object store's fsspec driver is not installed, or the store does not answer.
    """
    path = plain_path(uri)
    if not is_remote(uri):
        return open(path, "rb")
    system, inside = _file_system(path)
    handle: IO[bytes] = system.open(inside, "rb")
    return handle


def exists(uri: str) -> bool:
    """Whether there is a file or a folder of that name.

    Raises:
        EnvironmentProblem: the object store's fsspec driver is not installed, or the store does not answer.
    """
    path = plain_path(uri)
    if not is_remote(uri):
        return Path(path).exists()
    system, inside = _file_system(path)
    with reaching(path):
        return bool(system.exists(inside))


def folders(uri: str) -> list[str]:
    """Names of the folders directly below a folder, in order, hidden ones (``.git``, ``_SUCCESS``) left out.

    Raises:
        OSError: it cannot be listed.
        EnvironmentProblem: the object store's fsspec driver is not installed, or the store does not answer.
    """
    path = plain_path(uri)
    if not is_remote(uri):
        found = [entry.name for entry in Path(path).iterdir() if entry.is_dir()]
    else:
        system, inside = _file_system(path)
        with reaching(path):
            listed = system.ls(inside, detail=True)
        found = [entry["name"].rstrip("/").rpartition("/")[2] for entry in listed if entry["type"] == "directory"]
    return sorted(name for name in found if not name.startswith((".", "_")))


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        with reaching(url, ImportError, ValueError):
            return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise EnvironmentProblem(
            f"{url} cannot be reached: {error}. Install the fsspec driver of this store (s3fs, gcsfs or adlfs) on the "
            "driver and every worker, or read from a mounted volume."
        ) from error


def open_bytes(uri: str) -> IO[bytes]:
    """The file's content, decompressed while it is read if its name ends in ``.gz`` or ``.zst``.

    Raises:
        OSError: it cannot be opened.
        DAMAGED: (while reading) the compressed data end early or make no sense.
    """
    raw = open_raw(uri)
    name = uri.lower()
    if name.endswith(".gz"):
        # 16 + 15: with a gzip header, whatever its window.
        return io.BufferedReader(_Frames(raw, lambda: zlib.decompressobj(31)), _BUFFER)
    if name.endswith(".zst"):
        # Dumps packed with `--long=31` need the largest window there is; the memory is only taken when used.
        context = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return io.BufferedReader(_Frames(raw, context.decompressobj), _BUFFER)
    return raw


class Damaged(Exception):
    """The content of a file makes no sense to the library that reads it."""


# What reading a damaged file can raise; `is_damage` tells an ``OSError`` that is the file's own fault.
DAMAGED = (Damaged, EOFError, zlib.error, zstandard.ZstdError, OSError)


def is_damage(error: BaseException) -> bool:
    """Whether one of ``DAMAGED`` is the file's own fault; an ``OSError`` with another number deserves a retry.

    The decompressors and pyarrow raise ``OSError`` without a number for content they cannot make sense of.
    """
    return not isinstance(error, OSError) or error.errno in _LOST_FOR_GOOD


class _Frames(io.RawIOBase):
    """Decompresses frames (members, in gzip's words) one after another; the last one cut short is an ``EOFError``.

    ``zstandard.stream_reader`` ends quietly there, so that a damaged file would pass for a short one; and here all that
    could be decompressed before a fault is handed on.

    Args:
        raw: the compressed file, closed together with this.
        decompressor: makes a decompressor of one frame with ``decompress``, ``eof`` and ``unused_data``.
    """

    def __init__(self, raw: IO[bytes], decompressor: Callable[[], Any]) -> None:
        self._raw = raw
        self._decompressor = decompressor
        self._frame: Any = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            self._output = memoryview(b"")  # an empty slice would keep what it was cut from
            if self._frame is None:
                self._input = self._input.lstrip(b"\0")  # padding of tapes and archives between frames
            if not self._input:
                self._input = self._raw.read(_INPUT)
                if not self._input:
                    if self._frame is None:
                        return 0
                    raise EOFError("the compressed data end in the middle of a frame")
                continue
            if self._frame is None:
                self._frame = self._decompressor()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
