"""From shards to batches: positions, targets and weights, the same global batch for any number of ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.shard_sets import write_set
from trainer.data.loader import Batch, Counts, Loader, collate
from trainer.data.objective import role_weights
from trainer.data.order import Order, SourceShare
from trainer.data.sources import ShardSet


def test_collate_keeps_documents_apart() -> None:
    ids = np.array([[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 5, 6]], np.uint16)
    batch = collate(ids, [np.array([2, 3]), np.array([6])], np.ones((2, 6), np.float32), [(0, 0), (0, 1)])
    assert batch.position_ids.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]
    assert batch.documents.tolist() == [[0, 0, 1, 1, 1, 2], [0] * 6]
    assert batch.cu_seqlens.tolist() == [0, 2, 5, 6, 12]
    assert batch.max_seqlen == 6
    # The last token of a document and the padding predict nothing.
    assert batch.positions.tolist() == [0, 2, 3, 6, 7, 8, 9, 10]
    assert batch.targets.tolist() == [6, 8, 9, 2, 3, 4, 5, 6]
    assert batch.tokens == 11


def test_collate_weighs_the_predicted_token() -> None:
    weights = np.array([[1, 0, 0.5, 1, 1, 1]], np.float32)
    batch = collate(np.arange(6, dtype=np.uint16)[None], [np.array([4, 2])], weights, [(0, 0)])
    assert batch.positions.tolist() == [1, 2, 4]
    assert batch.targets.tolist() == [2, 3, 5]
    assert batch.weights.tolist() == [0.5, 1, 1]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[ShardSet]:
    root = tmp_path_factory.mktemp("sets")
    return [ShardSet(write_set(root, "raw", 150)), ShardSet(write_set(root, "tuning", 80, roles=True))]


def _loader(sets: list[ShardSet], rank: int, size: int, micro: int, objective: str = "pretrain") -> Loader:
    order = Order([SourceShare(str(number), len(entry), 1.0) for number, entry in enumerate(sets)], seed=3)
    return Loader(order, sets, role_weights(objective), 12, micro, rank, size)


def _rows(batches: list[Batch]) -> list[tuple[int, int]]:
    return [row for batch in batches for row in batch.rows]


@pytest.mark.parametrize(("size", "micro"), [(1, 12), (1, 4), (2, 3), (3, 4), (4, 1)])
def test_any_division_gives_the_same_global_batch(sets: list[ShardSet], size: int, micro: int) -> None:
    whole = _loader(sets, 0, 1, 12).read(24)[0]
    parts = [_loader(sets, rank, size, micro).read(24) for rank in range(size)]
    assert [row for part in parts for row in _rows(part)] == whole.rows
    assert torch.cat([batch.input_ids for part in parts for batch in part]).equal(whole.input_ids)
    assert torch.cat([batch.targets for part in parts for batch in part]).equal(whole.targets)


def test_reading_ahead_changes_nothing(sets: list[ShardSet]) -> None:
    loader = _loader(sets, 0, 1, 4)
    for position in (0, 12, 24, 60, 0):
        assert _rows(loader.step(position)) == _rows(loader.read(position))
    loader.close()


def test_trained_tokens_equal_the_sum_over_documents(sets: list[ShardSet]) -> None:
    """Every token but the first of each document is learned once in a pass."""
    raw = sets[0]
    rows = [(0, row) for row in range(len(raw))]
    located = [raw.locate(row) for _, row in rows]
    lengths = [reader.lengths(row) for reader, row in located]
    ids = np.stack([reader.input_ids(row) for reader, row in located])
    batch = collate(ids, lengths, np.ones(ids.shape, np.float32), rows)
    documents = sum(len(entry) for entry in lengths)
    assert batch.tokens == raw.manifest.tokens
    assert len(batch.positions) == raw.manifest.tokens - documents


@pytest.mark.parametrize("objective", ["synthesizer", "instruction_tuning", "instruction_modelling"])
def test_objectives_learn_the_roles_they_name(sets: list[ShardSet], objective: str) -> None:
    tuning = [sets[1]]
    batch = _loader(tuning, 0, 1, 12, objective).read(0)[0]
    table = role_weights(objective)
    expected = 0
    for _, row in batch.rows:
        reader, index = tuning[0].locate(row)
        roles, start = reader.roles(index), 0
        assert roles is not None
        for length in reader.lengths(index).tolist():
            expected += int(table[roles[start + 1 : start + length]].sum())
            start += length
    assert len(batch.positions) == expected > 0


def test_a_shard_that_was_cut_short_is_named(tmp_path: Path) -> None:
    from udfs.errors import DataError

    folder = write_set(tmp_path, "raw", 30)
    shard = next(folder.glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(DataError, match=shard.name):
        ShardSet(folder)


def test_every_document_may_weigh_the_same() -> None:
    weights = np.array([[1, 0, 0.5, 1, 1, 0, 0, 0]], np.float32)
    ids = np.arange(8, dtype=np.uint16)[None]
    batch = collate(ids, [np.array([5, 2])], weights, [(0, 0)], by_example=True)
    assert batch.weights.tolist() == pytest.approx([0.2, 0.4, 0.4])  # the second document has nothing to learn


def test_groups_and_counts_say_what_was_learned(sets: list[ShardSet]) -> None:
    batches = _loader(sets, 0, 1, 4, "instruction_modelling").read(0)
    counts = Counts.of(batches)
    learned = counts.learned.reshape(2, 5)  # source x (no role, template, context, instruction, response)
    assert learned[0].tolist() == [learned[0].sum(), 0, 0, 0, 0]
    assert learned[1, :3].tolist() == [0, 0, 0] and (learned[1, 3:] > 0).all()
    assert counts.learned.sum() == sum(len(batch.positions) for batch in batches)
    assert counts.source_tokens.sum() == sum(batch.tokens for batch in batches)
    rows = [place for batch in batches for place in batch.rows]
    lengths = [sets[source].locate(row) for source, row in rows]
    assert counts.squares == sum(int((reader.lengths(row) ** 2).sum()) for reader, row in lengths)
