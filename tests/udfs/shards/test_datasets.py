"""Hugging Face datasets reads our shard files as they are."""

from pathlib import Path

from tests.trainer.shard_sets import write_set
from udfs.shards.format import ROLES, ShardReader
from udfs.shards.manifest import read_manifest


def test_datasets_loads_the_shards_of_a_set(tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = write_set(tmp_path, "examples", 60, roles=True)
    manifest = read_manifest(folder)
    files = [str(folder / shard.path) for shard in manifest.shards]
    loaded = load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == manifest.rows and len(files) > 1
    assert set(loaded.column_names) == {"input_ids", "lengths", "doc_ids", "roles"}
    assert loaded.features["input_ids"].length == manifest.sequence_length
    row = 0
    for file in files:
        reader = ShardReader(file)
        for number in range(len(reader)):
            entry = loaded[row]
            assert entry["input_ids"] == reader.input_ids(number).tolist()
            assert entry["lengths"] == reader.lengths(number).tolist()
            assert entry["doc_ids"] == reader.doc_ids(number)
            assert max(entry["roles"]) < len(ROLES)
            row += 1
