from pathlib import Path

import pytest

from udfs.errors import DataError
from udfs.shards.format import ShardInfo, checksum
from udfs.shards.manifest import MANIFEST, Manifest, Source, read_manifest, verify, write_manifest


def make(folder: Path) -> Manifest:
    shards = []
    for name in ("b", "a"):
        (folder / name).write_bytes(name.encode() * 100)
        shards.append(ShardInfo(name, checksum(folder / name), 100, 10, 70, 12))
    return Manifest.of(
        shards,
        name="raw",
        fingerprint="f",
        sequence_length=8,
        vocab_size=400,
        tokenizer_hash="t",
        tokenizer="tokenizer",
        pad_token_id=0,
        has_roles=False,
        packing="best_fit",
        source=Source(table="documents", version=3, path="tables/documents", filter={"arm": ["raw"]}),
        licenses=["Apache-2.0"],
    )


def test_a_manifest_comes_back_with_its_sums(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert (manifest.rows, manifest.tokens, manifest.documents) == (20, 140, 24)
    assert [shard.path for shard in manifest.shards] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", MANIFEST]


def test_verify_names_what_is_damaged(tmp_path: Path) -> None:
    write_manifest(tmp_path, make(tmp_path))
    assert verify(tmp_path) == []
    (tmp_path / "a").write_bytes(b"a" * 99 + b"x")
    (tmp_path / "b").write_bytes(b"b" * 99)
    assert verify(tmp_path) == ["a has the right size, but its content has changed", "b has 99 bytes, not 100"]
    (tmp_path / "b").unlink()
    assert verify(tmp_path)[1] == "b is missing"


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ('{"format": 2}', "format 2"), ("[]", "format None"), ('{"format": 1}', "not a manifest")],
)
def test_a_manifest_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match="no shard set in"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=message):
        read_manifest(tmp_path)
