from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.errors import DataError
from udfs.shards.format import Rows, ShardInfo, ShardReader, ShardSpec, ShardWriter, checksum

LENGTH = 8
BOS = 1


def spec_of(vocab_size: int = 32_000, has_roles: bool = False) -> ShardSpec:
    return ShardSpec(LENGTH, vocab_size, "hash", 0, BOS, has_roles)


def rows_of(lengths: list[list[int]], spec: ShardSpec) -> Rows:
    input_ids = np.zeros((len(lengths), LENGTH), spec.dtype)
    for number, row in enumerate(lengths):
        input_ids[number, : sum(row)] = np.arange(sum(row)) + 10 * number + 5
        input_ids[number, np.cumsum([0, *row[:-1]])] = BOS
    doc_ids = [[f"doc-{number}-{index}" for index in range(len(row))] for number, row in enumerate(lengths)]
    return Rows(input_ids, lengths, doc_ids, (input_ids % 4).astype(np.uint8) if spec.has_roles else None)


def write(folder: Path, chunks: list[Rows], spec: ShardSpec, rows_per_shard: int = 100) -> list[ShardInfo]:
    writer = ShardWriter(folder, "data/part-00000", spec, rows_per_shard)
    for chunk in chunks:
        writer.write(chunk)
    return writer.close()


@given(
    lengths=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=2), min_size=1, max_size=12),
    has_roles=st.booleans(),
    vocab_size=st.sampled_from([65_536, 65_537]),
    rows_per_shard=st.integers(1, 5),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[list[int]],
    has_roles: bool,
    vocab_size: int,
    rows_per_shard: int,
) -> None:
    folder = tmp_path_factory.mktemp("set")
    spec = spec_of(vocab_size, has_roles)
    rows = rows_of(lengths, spec)
    cut = len(rows) // 2
    infos = write(folder, [rows[:cut], rows[cut : len(rows)]], spec, rows_per_shard)

    assert [info.rows for info in infos[:-1]] == [rows_per_shard] * (len(infos) - 1)
    assert sum(info.tokens for info in infos) == sum(map(sum, lengths))
    assert sum(info.documents for info in infos) == sum(map(len, lengths))
    row = 0
    for info in infos:
        assert checksum(folder / info.path) == info.sha256
        assert (folder / info.path).stat().st_size == info.bytes
        reader = ShardReader(folder / info.path)
        assert reader.spec == spec
        assert len(reader) == info.rows
        for index in range(len(reader)):
            assert reader.input_ids(index).dtype == spec.dtype
            assert (reader.input_ids(index) == rows.input_ids[row]).all()
            assert reader.lengths(index).tolist() == lengths[row]
            assert reader.doc_ids(index) == rows.doc_ids[row]
            roles = reader.roles(index)
            assert (roles is not None) == has_roles
            if roles is not None and rows.roles is not None:
                assert (roles == rows.roles[row]).all()
            assert [name for name, _ in reader.documents(index)] == rows.doc_ids[row]
            row += 1
    assert row == len(rows)


def test_tokens_take_two_bytes_while_the_vocabulary_fits() -> None:
    assert spec_of(65_536).dtype == np.uint16
    assert spec_of(65_537).dtype == np.uint32


def test_rows_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    spec = spec_of(has_roles=True)
    (info,) = write(tmp_path, [rows_of([[3, 2], [8]], spec)], spec)
    before = pa.total_allocated_bytes()
    reader = ShardReader(tmp_path / info.path)
    for array in (reader.input_ids(1), reader.lengths(1), reader.roles(1)):
        assert array is not None
        assert not array.flags.owndata
        assert not array.flags.writeable
    assert pa.total_allocated_bytes() == before


def test_the_same_rows_give_the_same_bytes_and_a_repetition_replaces_them(tmp_path: Path) -> None:
    spec = spec_of()
    first = write(tmp_path, [rows_of([[3, 2], [8]], spec)], spec)
    assert write(tmp_path, [rows_of([[3, 2], [8]], spec)], spec) == first
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["part-00000-0000.arrow"]


def test_an_unfinished_file_never_has_its_name(tmp_path: Path) -> None:
    spec = spec_of()
    writer = ShardWriter(tmp_path, "data/part-00000", spec, 100)
    writer.write(rows_of([[3, 2], [8]], spec))
    assert list(tmp_path.rglob("*.arrow")) == []
    writer.abort()
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_file_cut_short_is_named(tmp_path: Path, keep: float) -> None:
    spec = spec_of()
    (info,) = write(tmp_path, [rows_of([[3, 2], [8]] * 50, spec)], spec)
    path = tmp_path / info.path
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(DataError, match=r"part-00000-0000\.arrow"):
        ShardReader(path)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no shard at .*gone\.arrow"):
        ShardReader(tmp_path / "gone.arrow")
    table = pa.table({"input_ids": [1, 2]})
    with pa.ipc.new_file(str(tmp_path / "foreign.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"foreign\.arrow is not a shard of format 1"):
        ShardReader(tmp_path / "foreign.arrow")
    declared = table.replace_schema_metadata(spec_of().schema.metadata)
    with pa.ipc.new_file(str(tmp_path / "wrong.arrow"), declared.schema) as writer:
        writer.write_table(declared)
    with pytest.raises(DataError, match=r"wrong\.arrow does not have the columns"):
        ShardReader(tmp_path / "wrong.arrow")


def test_a_row_outside_is_refused(tmp_path: Path) -> None:
    spec = spec_of()
    (info,) = write(tmp_path, [rows_of([[3, 2]], spec)], spec)
    reader = ShardReader(tmp_path / info.path)
    for row in (-1, 1):
        with pytest.raises(IndexError, match=f"row {row} of"):
            reader.input_ids(row)
