"""Shards from a folder and from a remote store: checked, cached within a limit, and named when they are damaged."""

from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.trainer.shard_sets import write_set
from trainer.config import DataConfig, SourceConfig
from trainer.data.sources import ShardSet, damaged
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.shards.format import ShardReader
from udfs.shards.manifest import read_manifest

URL = "memory://bucket/raw"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of several shards, and a copy of it in fsspec's store in memory."""
    place = write_set(tmp_path / "sets", "raw", 400)
    store = fsspec.filesystem("memory")
    for file in place.iterdir():
        store.pipe_file(f"/bucket/raw/{file.name}", file.read_bytes())
    return place


def _data(cache: Path, gib: float = 1.0) -> DataConfig:
    return DataConfig(sources={"raw": SourceConfig(path=URL)}, cache_dir=str(cache), cache_gib=gib)


def _ids(entry: ShardSet) -> np.ndarray:
    located = [entry.locate(row) for row in range(len(entry))]
    return np.stack([reader.input_ids(row) for reader, row in located])


def _cached(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.arrow"))


def test_remote_rows_are_the_local_ones_and_are_fetched_once(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    remote = ShardSet(URL, _data(cache))
    assert not _cached(cache)
    assert (_ids(remote) == _ids(ShardSet(folder))).all()
    assert len(_cached(cache)) == len(remote.manifest.shards) > 2
    fsspec.filesystem("memory").rm("/bucket/raw/" + remote.manifest.shards[0].path)
    assert (_ids(ShardSet(URL, _data(cache))) == _ids(ShardSet(folder))).all()


def test_the_cache_keeps_its_limit_and_the_rows_stay_right(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    size = max(shard.bytes for shard in read_manifest(folder).shards)
    remote = ShardSet(URL, _data(cache, 2 * size / 2**30))
    wanted = _ids(ShardSet(folder))
    for row in [0, len(remote) - 1, 20, 0, 40, len(remote) - 1]:
        reader, index = remote.locate(row)
        assert (reader.input_ids(index) == wanted[row]).all()
        assert sum(file.stat().st_size for file in _cached(cache)) <= 2 * size


def test_a_file_that_another_process_removes_before_it_is_mapped_is_fetched_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    remote = ShardSet(URL, _data(cache))
    asked = []

    def opened(path: Path) -> ShardReader:
        asked.append(path)
        if len(asked) == 1:
            path.unlink()
        return ShardReader(path)

    monkeypatch.setattr("trainer.data.sources.ShardReader", opened)
    reader, index = remote.locate(0)
    assert (reader.input_ids(index) == _ids(ShardSet(folder))[0]).all() and asked[0] == asked[1]


def test_a_damaged_remote_shard_is_named_and_not_kept(folder: Path, tmp_path: Path) -> None:
    shard = read_manifest(folder).shards[0]
    content = bytearray((folder / shard.path).read_bytes())
    content[len(content) // 2] ^= 1
    fsspec.filesystem("memory").pipe_file(f"/bucket/raw/{shard.path}", bytes(content))
    with pytest.raises(DataError, match=f"{URL}/{shard.path} is damaged"):
        ShardSet(URL, _data(tmp_path / "cache")).locate(0)
    assert not [path for path in (tmp_path / "cache").rglob("*") if "part" in path.name]


def test_a_damaged_file_in_the_cache_is_fetched_again(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ShardSet(URL, _data(cache)).locate(0)
    [file] = _cached(cache)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    reader, index = ShardSet(URL, _data(cache)).locate(0)
    assert (reader.input_ids(index) == _ids(ShardSet(folder))[0]).all()


def test_a_damaged_shard_of_a_folder_is_found_by_one_of_the_ranks(folder: Path) -> None:
    shards = read_manifest(folder).shards
    file = folder / shards[1].path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    sets = {"raw": ShardSet(folder)}
    found = [damaged(sets, rank, 2) for rank in range(2)]
    assert found[0] == [] and len(found[1]) == 1 and shards[1].path in found[1][0]


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache_dir"):
        ShardSet(URL)
    with pytest.raises(DataError, match="no shard set at memory://nowhere"):
        ShardSet("memory://nowhere", _data(tmp_path))
    with pytest.raises(ConfigError, match="Protocol not known"):
        ShardSet("nonsense://bucket/raw", _data(tmp_path))


@pytest.mark.parametrize("protocol", ["http", "ftp"])
def test_a_store_that_does_not_answer_is_named(protocol: str, closed_port: int, tmp_path: Path) -> None:
    url = f"{protocol}://127.0.0.1:{closed_port}/raw"
    with pytest.raises(EnvironmentProblem, match=f"^{url} does not answer"):
        ShardSet(url, _data(tmp_path))


def test_a_shard_that_cannot_be_fetched_any_more_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ShardSet(URL, _data(tmp_path / "cache"))

    def gone(*arguments: object, **options: object) -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", gone)
    with pytest.raises(EnvironmentProblem, match=r"^memory://bucket/raw/.*\.arrow does not answer.*ConnectionReset"):
        entry.locate(0)


def test_a_manifest_cannot_name_a_place_outside_the_set(folder: Path, tmp_path: Path) -> None:
    shard = read_manifest(folder).shards[0]
    entry = ShardSet(URL, _data(tmp_path / "cache"))
    with pytest.raises(DataError, match="outside the set"):
        entry.files.path(shard.model_copy(update={"path": "../../escaped.arrow"}))
