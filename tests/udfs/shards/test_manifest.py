import json
from pathlib import Path

import numpy as np
import pytest

from udfs.errors import DataError
from udfs.shards.format import ShardSpec, ShardWriter
from udfs.shards.manifest import MANIFEST, Content, Manifest, Source, read_manifest, verify, write_manifest
from udfs.shards.pack import Text, best_fit


def make(place: str | Path, spec: ShardSpec) -> Manifest:
    """Two files of 6 full rows each, and their manifest."""
    writer = ShardWriter(place, "part", spec, rows_per_shard=6)
    ids = np.full(spec.sequence_length, 5, spec.dtype)
    ids[0] = spec.bos_token_id
    for rows in best_fit((Text(ids, f"d{number}") for number in range(12)), spec):
        writer.write(rows)
    return Manifest.of(
        writer.close(),
        name="raw",
        fingerprint="f",
        sequence_length=spec.sequence_length,
        vocab_size=spec.vocab_size,
        tokenizer_hash=spec.tokenizer_hash,
        tokenizer="tokenizer",
        pad_token_id=spec.pad_token_id,
        has_roles=False,
        packing="best_fit",
        source=Source(table="documents", table_id="0", version=3, path="tables/documents", filter={"arm": ["raw"]}),
        contents=[Content(source="towns", licenses=["Apache-2.0"], texts=12)],
    )


def test_a_manifest_comes_back_with_its_sums(tmp_path: Path, spec: ShardSpec) -> None:
    manifest = make(tmp_path, spec)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert (manifest.rows, manifest.tokens, manifest.documents) == (12, 12 * spec.sequence_length, 12)
    names = [shard.path for shard in manifest.shards]
    assert names == sorted(names) and len(names) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, MANIFEST])


def test_verify_names_what_is_damaged(tmp_path: Path, spec: ShardSpec) -> None:
    manifest = make(tmp_path, spec)
    write_manifest(tmp_path, manifest)
    assert verify(tmp_path) == []
    first, second = (tmp_path / shard.path for shard in manifest.shards)
    whole = first.read_bytes()
    first.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    second.write_bytes(whole[:-1])
    assert verify(tmp_path) == [
        f"{first.name} has the right size, but its content has changed",
        f"{second.name} has {len(whole) - 1} bytes, not {len(whole)}",
    ]
    second.unlink()
    assert verify(tmp_path)[1] == f"{second.name} is missing"


def test_verify_finds_a_manifest_that_says_what_the_files_do_not(tmp_path: Path, spec: ShardSpec) -> None:
    write_manifest(tmp_path, make(tmp_path, spec))
    tree = json.loads((tmp_path / MANIFEST).read_text())
    tree |= {"tokens": tree["tokens"] + 1, "tokenizer_hash": "other"}
    tree["shards"][0]["rows"] = 7
    tree["rows"] += 1
    (tmp_path / MANIFEST).write_text(json.dumps(tree))
    said = verify(tmp_path)
    assert any("tokens, its files add up to" in problem for problem in said)
    assert sum("says tokenizer_hash 'other'" in problem for problem in said) == 2
    assert any("says rows 7" in problem and tree["shards"][0]["path"] in problem for problem in said)
    assert len(said) == 4


def test_verify_counts_what_is_in_each_file(tmp_path: Path, spec: ShardSpec) -> None:
    write_manifest(tmp_path, make(tmp_path, spec))
    tree = json.loads((tmp_path / MANIFEST).read_text())
    first, second = tree["shards"]
    for name in ("tokens", "documents"):  # the sums stay what they are
        first[name], second[name] = first[name] - 1, second[name] + 1
    (tmp_path / MANIFEST).write_text(json.dumps(tree))
    assert verify(tmp_path) == [
        f"{MANIFEST} says {name} {shard[name]} of {shard['path']}, the file {shard[name] + change}"
        for shard, change in ((first, 1), (second, -1))
        for name in ("tokens", "documents")
    ]


def test_verify_finds_a_file_that_is_listed_twice(tmp_path: Path, spec: ShardSpec) -> None:
    manifest = make(tmp_path, spec)
    first, _ = manifest.shards
    write_manifest(tmp_path, manifest.model_copy(update={"shards": [first, first]}))  # as large as the other one
    assert verify(tmp_path) == [f"{MANIFEST} lists {first.path} 2 times"]


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
