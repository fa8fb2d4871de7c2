"""Where the files of a shard set come from: a folder, or a store that fsspec opens, through a cache on this machine.

Nothing unchecked is ever trained on. A remote file is hashed while it is fetched, and gets its name in the cache only
if it is the one the manifest means. The files of a folder are hashed once for every node, before training starts.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from udfs.errors import ConfigError, DataError
from udfs.hashing import identifier
from udfs.shards.format import checksum
from udfs.shards.manifest import MANIFEST, Shard
from udfs.shards.store import reaching

_CHUNK = 1 << 22


class ShardFiles(Protocol):
    """The files of one set."""

    def manifest_folder(self) -> Path:
        """A folder with the set's manifest."""

    def path(self, shard: Shard) -> Path:
        """The shard as a file of this machine. It may go when another one is asked for, by another process too; what is
        mapped stays readable.

        Raises:
            DataError: it is missing or damaged; the message names it.
        """

    def problems(self, shards: list[Shard]) -> list[str]:
        """What is wrong with some of the set's files, one sentence each."""


class LocalFiles:
    """The files of a set in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def manifest_folder(self) -> Path:
        """The folder itself."""
        return self._folder

    def path(self, shard: Shard) -> Path:
        """Its place; the size is checked."""
        file = self._folder / shard.path
        if not file.is_file() or file.stat().st_size != shard.bytes:
            raise DataError(f"shard {file} is missing or cut short. Shard the set again.")
        return file

    def problems(self, shards: list[Shard]) -> list[str]:
        """Each file that is not as the manifest says."""
        return [
            f"shard {self._folder / shard.path} is damaged: its SHA-256 is not the manifest's. Shard the set again."
            for shard in shards
            if checksum(self.path(shard)) != shard.sha256
        ]


class CachedFiles:
    """The files of a set behind a URL.

    Processes of one machine share the cache: a file appears in it whole, and the ones unused for longest go when
    the limit is passed.

    Args:
        url: folder of the set.
        cache: folder of the cache.
        limit: bytes the cache may take; the file asked for stays even if it is larger.

    Raises:
        ConfigError: fsspec does not know the protocol.
        DataError: there is no set at the URL.
        EnvironmentProblem: the store does not answer, here or when a shard is asked for.
    """

    def __init__(self, url: str, cache: Path, limit: int) -> None:
        import fsspec

        self._url, self._cache, self._limit = url.rstrip("/"), cache, limit
        self._folder = cache / identifier(self._url)
        self._checked: set[str] = set()
        try:
            with reaching(self._url, ValueError, ImportError):
                self._store, self._root = fsspec.core.url_to_fs(self._url)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{url} cannot be opened: {error}. Install what fsspec needs for it.") from error
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with reaching(self._url):
                content = self._store.cat_file(f"{self._root}/{MANIFEST}")
        except FileNotFoundError as error:
            raise DataError(f"there is no shard set at {url}: it has no {MANIFEST}.") from error
        _publish(self._folder / MANIFEST, [content])

    def manifest_folder(self) -> Path:
        """Where the manifest was put."""
        return self._folder

    def path(self, shard: Shard) -> Path:
        """Its place in the cache, where it is put if it is not there or damaged."""
        name = PurePosixPath(shard.path)
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"the manifest of {self._url} names {shard.path!r}, which is outside the set.")
        file = self._folder / shard.path
        try:
            os.utime(file)
            found = shard.path in self._checked or checksum(file) == shard.sha256
        except FileNotFoundError:  # not there, or another process removed it
            found = False
        if not found:
            self._fetch(shard, file)
        self._checked.add(shard.path)
        return file

    def problems(self, shards: list[Shard]) -> list[str]:
        """None: what is fetched is checked then."""
        return []

    def _fetch(self, shard: Shard, file: Path) -> None:
        url = f"{self._url}/{shard.path}"
        digest = hashlib.sha256()

        def content() -> Iterator[bytes]:
            with reaching(url), self._store.open(f"{self._root}/{shard.path}", "rb") as remote:
                while chunk := remote.read(_CHUNK):
                    digest.update(chunk)
                    yield chunk
            if digest.hexdigest() != shard.sha256:
                raise DataError(f"shard {url} is damaged: its SHA-256 is not the manifest's. Shard the set again.")

        self._make_room(shard.bytes)
        try:
            _publish(file, content())
        except FileNotFoundError as error:
            raise DataError(f"shard {url} is missing. Shard the set again.") from error

    def _make_room(self, wanted: int) -> None:
        """Remove the shards unused for longest until ``wanted`` bytes fit."""
        found = []
        for path in self._cache.rglob("*.arrow"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        taken = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if taken + wanted <= self._limit:
                break
            path.unlink(missing_ok=True)
            taken -= size


def _publish(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file under another name and put it in place when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def shard_files(place: str | Path, cache: str | None, limit: int) -> ShardFiles:
    """The files of the set at a path or URL.

    Raises:
        ConfigError: a URL without a cache.
    """
    if "://" not in str(place):
        return LocalFiles(Path(place))
    if cache is None:
        raise ConfigError(f"data.cache_dir: not given, but {place} is remote. Name a folder on this machine's disk.")
    return CachedFiles(str(place), Path(cache), limit)
