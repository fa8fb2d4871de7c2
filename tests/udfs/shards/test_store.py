"""Shard sets in a folder and behind a URL: files whole or not at all, and damage found."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests.udfs.shards.test_manifest import make
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.shards.format import ShardSpec, ShardWriter
from udfs.shards.manifest import MANIFEST, read_manifest, verify, write_manifest
from udfs.shards.store import Store, store_at
from udfs.shards.trace import locate


@pytest.fixture(params=["folder", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    roots: dict[str, Callable[[], str]] = {
        "folder": lambda: str(tmp_path),
        "file": lambda: f"file://{tmp_path}",
        "memory": lambda: f"memory://{uuid4().hex}",
    }
    return f"{roots[request.param]()}/sets/raw"


def _overwrite(store: Store, name: str, content: bytes) -> None:
    file = store.create(name)
    file.write(content)
    file.commit()


def test_a_set_is_written_read_and_verified(place: str, spec: ShardSpec) -> None:
    store = store_at(place)
    assert store.sizes() == {}
    with pytest.raises(DataError, match="no shard set in"):
        verify(place)
    manifest = make(place, spec)
    write_manifest(place, manifest)
    assert read_manifest(place) == manifest
    assert verify(place) == []
    names = [shard.path for shard in manifest.shards]
    assert store.sizes().keys() == {*names, MANIFEST}
    assert locate(place, f"{names[1]}:0:3").doc_id == "d6"

    first, second = names
    whole = store.read(first)
    _overwrite(store, first, whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    store.remove(second)
    assert verify(place) == [f"{first} has the right size, but its content has changed", f"{second} is missing"]


@pytest.mark.parametrize("place", ["folder", "file"], indirect=True)  # fsspec's memory shows files while they grow
def test_what_is_not_finished_is_not_there(place: str, spec: ShardSpec) -> None:
    store = store_at(place)
    file = store.create("data/part.arrow")
    file.write(b"half")
    assert "data/part.arrow" not in store.sizes()
    file.discard()
    assert store.sizes() == {}
    writer = ShardWriter(place, "data/part", spec, 100)
    writer.abort()
    assert writer.close() == [] and store.sizes() == {}
    store.remove("data/part.arrow")  # what is not there need not be removed


def test_a_store_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere://x cannot be opened"):
        store_at("nowhere://x")


@pytest.mark.parametrize("protocol", ["http", "ftp"])  # fails when it is asked, when it is opened
def test_a_store_that_does_not_answer_is_named(protocol: str, closed_port: int) -> None:
    url = f"{protocol}://127.0.0.1:{closed_port}/sets/raw"
    for ask in (read_manifest, verify):
        with pytest.raises(EnvironmentProblem, match=f"^{url} does not answer, or refuses .* Check the address"):
            ask(url)
