from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from udfs.errors import DataError
from udfs.shards.build import BuildPlan, build
from udfs.shards.encode import EncodeSettings
from udfs.shards.format import ShardInfo, ShardReader, ShardSpec
from udfs.tokens import Tokenizer

ROWS = [
    {
        "bucket": number // 50,
        "id": f"d{number}",
        "text": f"Elm Bay has {number * 7919} inhabitants. " * (1 + number % 9),
    }
    for number in range(100)
]


@pytest.fixture
def plan(tmp_path: Path, tokenizer: Tokenizer, spec: ShardSpec) -> BuildPlan:
    tokenizer.save(tmp_path / "tokenizer")
    return BuildPlan(
        str(tmp_path / "set"), "data-1", str(tmp_path / "tokenizer"), spec, EncodeSettings("documents"), "best_fit", 20
    )


def files(rows: list[dict[str, Any]], plan: BuildPlan) -> list[ShardInfo]:
    return [result for result in build(iter(rows), plan) if isinstance(result, ShardInfo)]


@pytest.mark.parametrize("packing", ["best_fit", "concatenate"])
def test_trained_tokens_are_the_sum_over_documents(plan: BuildPlan, tokenizer: Tokenizer, packing: str) -> None:
    infos = files(ROWS, replace(plan, packing=packing))
    expected = {row["id"]: len(tokenizer.encode(row["text"])) + 2 for row in ROWS}
    assert sum(info.tokens for info in infos) == sum(expected.values())
    assert sum(info.documents for info in infos) == len(ROWS)
    found: dict[str, list[int]] = {}
    for info in infos:
        reader = ShardReader(Path(plan.place) / info.path)
        for row in range(len(reader)):
            for name, ids in reader.documents(row):
                found.setdefault(name, []).extend(ids.tolist())
    assert {name: len(ids) for name, ids in found.items()} == expected
    # From a row back to its source: what a document's tokens say is that document's text.
    for row in ROWS:
        if expected[row["id"]] <= plan.spec.sequence_length and packing == "best_fit":
            assert tokenizer.decode(found[row["id"]][1:-1]) == row["text"]


def test_texts_are_counted_once_where_one_token_begins_and_ends_them(plan: BuildPlan, tokenizer: Tokenizer) -> None:
    both = Tokenizer(tokenizer._backend, "<s>", "<s>", None)
    both.save(plan.tokenizer)
    infos = files(ROWS, replace(plan, spec=replace(plan.spec, tokenizer_hash=both.hash)))
    assert sum(info.documents for info in infos) == len(ROWS)


def test_files_are_named_by_bucket_wherever_it_is_built(plan: BuildPlan) -> None:
    together = files(ROWS, plan)
    assert {info.path.rsplit("-", 1)[0] for info in together} == {"data-1/part-00000", "data-1/part-00001"}
    apart = files(ROWS[50:], plan) + files(ROWS[:50], plan)
    assert sorted(apart, key=lambda info: info.path) == together


def test_a_failure_leaves_no_unfinished_file(plan: BuildPlan) -> None:
    def failing() -> Any:
        yield from ROWS[:30]
        raise OSError("the input broke")

    many = replace(plan, rows_per_shard=1)
    with pytest.raises(OSError, match="the input broke"):
        list(build(failing(), many))
    assert list(Path(plan.place).rglob("*.tmp")) == []


def test_another_tokenizer_than_planned_is_refused(plan: BuildPlan) -> None:
    with pytest.raises(DataError, match="was planned with other"):
        list(build(iter(ROWS), replace(plan, spec=replace(plan.spec, tokenizer_hash="other"))))
