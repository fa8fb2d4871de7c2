"""Where the files of a shard set lie: a folder of this machine or of a mounted volume, or an object store.

Either way a file is there whole or not at all, and none is ever changed. In a folder it is written under another name
and renamed; a store is asked for no renaming, which it would do by copying: an upload counts when it is complete.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from udfs.errors import ConfigError, EnvironmentProblem, InstructionPretrainingError

if TYPE_CHECKING:
    import pyarrow as pa


class NewFile(Protocol):
    """A file to be written once, from start to end; it has its name after ``commit`` and leaves nothing else."""

    def write(self, data: Any) -> object: ...

    def commit(self) -> None: ...

    def discard(self) -> None: ...


class Store(Protocol):
    """The files of one shard set; names are relative to its place, with ``/`` between their parts."""

    def create(self, name: str) -> NewFile:
        """A new file; on ``commit`` it replaces one of the same name."""

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none.
        """

    def open(self, name: str) -> "pa.NativeFile":
        """A file for Arrow to read from: mapped into memory, or fetched.

        Raises:
            FileNotFoundError: there is none.
        """

    def sizes(self) -> dict[str, int]:
        """Name and bytes of every file; empty where the place does not exist."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def store_at(place: str | Path) -> Store:
    """The store at a path or URL.

    Raises:
        ConfigError: fsspec cannot open the URL.
    """
    return RemoteStore(str(place)) if is_remote(place) else FolderStore(Path(place))


def is_remote(place: str | Path) -> bool:
    """Whether the place is a URL for fsspec, rather than a folder."""
    return "://" in str(place)


def without_password(place: str) -> str:
    """``place``, which is shown, logged and written into manifests.

    Raises:
        ValueError: it is a URL with a password.
    """
    if is_remote(place) and urlsplit(place).password:
        raise ValueError(
            "must not hold a password, since it is shown and recorded: give it to fsspec, in the environment as "
            "FSSPEC_<PROTOCOL>_PASSWORD or in ~/.config/fsspec"
        )
    return place


@contextlib.contextmanager
def reaching(url: str, *understood: type[Exception]) -> Iterator[None]:
    """Around what fsspec does at a URL: a store that does not answer, or refuses, is one message.

    Raises:
        EnvironmentProblem: fsspec, or the driver behind it, raised anything but a FileNotFoundError and what the caller
            understands.
    """
    try:
        yield
    except Exception as error:  # any of fsspec's file systems, each with errors of its own
        if isinstance(error, (FileNotFoundError, InstructionPretrainingError, *understood)):
            raise
        raise EnvironmentProblem(
            f"{url} does not answer, or refuses ({type(error).__name__}: {error}). Check the address, the network and "
            "the credentials that fsspec finds for it, and start the same command again."
        ) from error


class FolderStore:
    """Files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str) -> NewFile:
        """See ``Store``."""
        return _RenamedFile(self._folder / name)

    def read(self, name: str) -> bytes:
        """See ``Store``."""
        return (self._folder / name).read_bytes()

    def open(self, name: str) -> "pa.NativeFile":
        """See ``Store``."""
        import pyarrow as pa

        return pa.memory_map(str(self._folder / name), "r")

    def sizes(self) -> dict[str, int]:
        """See ``Store``."""
        files = (path for path in self._folder.rglob("*") if path.is_file())
        return {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in files}

    def remove(self, name: str) -> None:
        """See ``Store``; a folder that is left empty goes, too."""
        path = self._folder / name
        path.unlink(missing_ok=True)
        if path.parent != self._folder and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


class _RenamedFile:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # The process id keeps two attempts at the same work out of each other's way.
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = self._temporary.open("wb")

    def write(self, data: Any) -> object:
        return self._file.write(data)

    def commit(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)

    def discard(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class RemoteStore:
    """Files below a URL.

    Raises:
        ConfigError: fsspec does not know the protocol, or its driver is not installed.
        EnvironmentProblem: whenever the store does not answer.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self._url = url
        try:
            with reaching(url, ValueError, ImportError):
                self._system, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f"{url} cannot be opened: {error}. Install what fsspec needs for it (s3fs, gcsfs or adlfs), or name a "
                "folder of a mounted volume."
            ) from error
        self._root = root.rstrip("/")

    def create(self, name: str) -> NewFile:
        """See ``Store``."""
        path = self._path(name)
        with reaching(self._url):
            with contextlib.suppress(PermissionError):  # of a store without folders, which needs none
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
            return _Upload(self._url, self._system.open(path, "wb", autocommit=False))

    def read(self, name: str) -> bytes:
        """See ``Store``."""
        with reaching(self._url):
            content: bytes = self._system.cat_file(self._path(name))
        return content

    def open(self, name: str) -> "pa.NativeFile":
        """See ``Store``."""
        import pyarrow as pa

        return pa.BufferReader(self.read(name))

    def sizes(self) -> dict[str, int]:
        """See ``Store``."""
        with reaching(self._url):
            self._system.invalidate_cache()  # other processes write there
            found = self._system.find(self._root, detail=True)
        return {path.removeprefix(self._root).lstrip("/"): entry["size"] for path, entry in found.items()}

    def remove(self, name: str) -> None:
        """See ``Store``."""
        with reaching(self._url):
            if self._system.exists(self._path(name)):
                self._system.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class _Upload:
    """An upload by the protocol of fsspec's transactions: closed, then committed or discarded."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def write(self, data: Any) -> object:
        with reaching(self._url):
            return self._file.write(data)

    def commit(self) -> None:
        with reaching(self._url):
            self._file.close()
            self._file.commit()

    def discard(self) -> None:
        self._file.discard()
