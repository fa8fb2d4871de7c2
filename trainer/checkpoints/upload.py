"""Checkpoints copied to a folder elsewhere while the training goes on, and brought back to a machine that has none.

A copy is complete when its marker is there: the marker goes last on the way up, and nothing without one comes down.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from udfs.shards.store import reaching

log = logging.getLogger("trainer")

# Of names of checkpoints, oldest first, those that stay.
Retained = Callable[[Sequence[str]], Collection[str]]


class Remote:
    """A folder that ``fsspec`` opens; used by rank 0 only.

    Args:
        url: path or URL.
        marker: name of the file that makes a checkpoint complete.

    Raises:
        EnvironmentProblem: the file system does not answer, here, to ``names`` or to ``fetch``.
    """

    def __init__(self, url: str, marker: str) -> None:
        self._files: Any
        self._url, self._marker = url, marker
        with reaching(url):
            self._files, self._root = fsspec.core.url_to_fs(url)
        self._worker = ThreadPoolExecutor(1, "upload")
        self._pending: dict[str, Future[None]] = {}

    def send(self, checkpoint: Path, retained: Retained) -> None:
        """Copy a checkpoint in the background; of those there, which this machine need not have, ``retained`` stay."""
        self._pending[checkpoint.name] = self._worker.submit(self._send, checkpoint, retained)

    def busy(self) -> set[str]:
        """Names of the checkpoints whose copies are not done; they must not be removed."""
        self._pending = {name: future for name, future in self._pending.items() if not future.done()}
        return set(self._pending)

    def finish(self) -> None:
        """Wait for all copies."""
        self._worker.shutdown()

    def names(self) -> list[str]:
        """Complete checkpoints there, oldest first."""
        with reaching(self._url):
            if not self._files.isdir(self._root):
                return []
            self._files.invalidate_cache(self._root)
            folders = [entry.rstrip("/") for entry in self._files.ls(self._root, detail=False)]
            return sorted(_name(entry) for entry in folders if self._files.exists(f"{entry}/{self._marker}"))

    def fetch(self, name: str, into: Path) -> None:
        """Bring a checkpoint to ``into / name``: whole or not at all."""
        part = into / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        source = f"{self._root}/{name}"
        with reaching(self._url):
            for path in self._files.find(source):
                target = part / str(path).removeprefix(source).lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(path, str(target))
        shutil.rmtree(into / name, ignore_errors=True)  # half removed: complete ones are not fetched
        part.replace(into / name)

    def _send(self, checkpoint: Path, retained: Retained) -> None:
        try:
            target = f"{self._root}/{checkpoint.name}"
            if self._files.exists(f"{target}/{self._marker}"):
                self._files.rm(f"{target}/{self._marker}")
            for path in _marker_last(checkpoint, self._marker):
                place = f"{target}/{path.relative_to(checkpoint).as_posix()}"
                self._files.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
                self._files.put_file(str(path), place)
            present = self.names()
            for name in {*present} - {*retained(present), checkpoint.name}:
                self._files.rm(f"{self._root}/{name}/{self._marker}")
                self._files.rm(f"{self._root}/{name}", recursive=True)
        except Exception as error:  # noqa: BLE001 -- any of fsspec's file systems: none may stop the training
            log.warning("checkpoint %s was not copied to %s: %s", checkpoint.name, self._root, error)


def _marker_last(checkpoint: Path, marker: str) -> Iterable[Path]:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != marker)
    return [*files, checkpoint / marker]


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]
