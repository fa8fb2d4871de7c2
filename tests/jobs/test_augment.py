"""``augment`` on a real session: chains that arrive in pieces, chains with gaps, and chains that cannot be rendered."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from jobs.augment import AugmentConfig, chain_rows
from jobs.lakehouse.job import Job
from jobs.lakehouse.tables import ENGINE, PROVENANCE, SYNTHESES
from tests.udfs.templates.chains import chinese_pairs, lost, mixed_pairs, row
from udfs.templates.bank import load_bank
from udfs.templates.render import RenderSettings, render_chain


def _synthesis(entry: dict, length: int) -> dict:
    pairs = [{**pair, "format": "free_form"} for pair in entry["pairs"] or ()]
    return {
        **entry,
        "chain_length": length,
        "sample": 0,
        "carried": [],
        "status": "ok" if pairs else "no_pairs",
        "finish_reason": "stop",
        "n_prompt_tokens": 10,
        "n_cached_tokens": 0,
        "n_completion_tokens": 5,
        "pairs": pairs,
        "rejected_pairs": [],
        "engine": dict.fromkeys(ENGINE.fieldNames()),
        "completion": "",
    }


@pytest.fixture
def add(spark, lakehouse):
    """``add(rows, version, files)``: one commit to ``syntheses``, spread over so many files."""
    from pyspark.sql import functions as F

    def append(rows: Iterable[dict], version: int, files: int = 1) -> None:
        frame = spark.createDataFrame(list(rows), SYNTHESES.schema)
        for column in PROVENANCE:
            value = F.current_timestamp() if column.name == "written_at" else F.lit("test")
            frame = frame.withColumn(column.name, value)
        lakehouse.append(frame.repartition(files, "round"), "syntheses", "test", version)

    return append


def chain(name: str, *pairs: list[dict]) -> list[dict]:
    return [_synthesis(row(i, each, chain=name), len(pairs)) for i, each in enumerate(pairs)]


def sampled(number: int, *pairs: list[dict] | None) -> list[dict]:
    """A chain of the same documents as every other sample; None for a document that was rejected."""
    rows = [row(i, each, chain=f"sample-{number}", doc_id=f"doc-{i}") for i, each in enumerate(pairs)]
    return [{**_synthesis(one, len(pairs)), "sample": number} for one in rows if one["pairs"] is not None]


def test_chains_become_texts_once(lakehouse, run_verb, add) -> None:
    pairs = mixed_pairs()
    whole = chain("whole", pairs, pairs, [])
    none = chain("none", [], [])
    short = chain("short", pairs, pairs, pairs)[:2]  # the document of its last round was rejected
    bad = chain("bad", [{"instruction": "", "response": "yes"}])
    # One file per round and one file per micro-batch: a chain arrives in three of them.
    add([*whole, *none, *short, *bad], version=0, files=3)
    settings = {"files_per_batch": 1, "views": 2, "seed": 5}
    counts = run_verb("augment", settings)
    assert counts["augmented_texts"] == 2 + 1 + 2 + 2
    assert counts["rejects/invalid_chain"] == 1

    later = chain("later", chinese_pairs())
    later[0]["context"] = "这条河流经城市，全长五百公里。"
    add(later, version=1)
    assert run_verb("augment", settings)["augmented_texts"] == 2
    assert "augmented_texts" not in run_verb("augment", settings)

    rows = lakehouse.read("augmented_texts").collect()
    rendering = RenderSettings(seed=5)
    expected = {
        text.text_id: text
        for rows_of in (whole, none, short, later)
        for view in range(2)
        for text in render_chain(rows_of, rendering, load_bank("zh" if rows_of is later else "en"), view)
    }
    assert {entry["text_id"] for entry in rows} == set(expected)
    assert len(rows) == len(expected) == 9
    for entry in rows:
        assert entry["text"] == expected[entry["text_id"]].text
        assert entry["template_ids"] == expected[entry["text_id"]].template_ids
    for entry in rows:
        if entry["chain_id"] == "short":
            assert lost(entry["text"], short) == []
    reject = lakehouse.read("rejects").collect()[0]
    assert (reject["stage"], reject["record_id"], reject["reason"]) == ("augment", "bad", "invalid_chain")


@pytest.mark.parametrize("files_per_batch", [1, None])
def test_a_text_without_pairs_in_any_sample_is_raw_once(lakehouse, run_verb, add, files_per_batch: int | None) -> None:
    pairs = mixed_pairs()
    # Document 0 has pairs in two samples, 1 in none, 2 in one; 3 was rejected in the first and has none in the others.
    samples = (sampled(0, pairs, [], [], None), sampled(1, pairs, [], pairs, []), sampled(2, [], [], [], []))
    add([one for chain in samples for one in chain], version=0, files=3)
    counts = run_verb("augment", {"views": 2, "files_per_batch": files_per_batch})
    rows = lakehouse.read("augmented_texts").collect()
    assert sorted(entry["doc_ids"] for entry in rows if entry["mode"] == "raw") == [["doc-1:0"], ["doc-3:0"]]
    assert sorted((entry["chain_id"], *entry["doc_ids"]) for entry in rows if entry["mode"] != "raw") == [
        ("sample-0", "doc-0:0"),
        ("sample-0", "doc-0:0"),
        ("sample-1", "doc-0:0", "doc-2:0"),
        ("sample-1", "doc-0:0", "doc-2:0"),
    ]
    assert counts["augmented_texts"] == len({entry["text_id"] for entry in rows}) == 6


def test_only_the_commits_of_the_micro_batch_are_read(lakehouse, add) -> None:
    from pyspark.sql import functions as F

    for version in range(4):
        add([*chain(f"one-{version}", mixed_pairs(), []), *chain(f"two-{version}", [])], version, files=2)
    table = lakehouse.read("syntheses")
    # One file of the commit in the middle, with one row of a chain of two.
    arrived = table.where("chain_id = 'one-1' AND round = 1").collect()
    batch = lakehouse._session().createDataFrame(arrived, table.schema)
    found = chain_rows(batch, Job(lakehouse, "augment", AugmentConfig(), lakehouse._session))
    assert [(row["chain_id"], row["round"], row["arrived"]) for row in found.collect()] == [
        ("one-1", 0, 1),
        ("one-1", 1, 1),
    ]
    everything = table.select("written_at", F.col("_metadata.file_path").alias("path")).collect()
    commit = {row["path"] for row in everything if row["written_at"] == arrived[0]["written_at"]}
    assert len(commit) < len({row["path"] for row in everything})
    assert {Path(path).name for path in found.inputFiles()} == {Path(path).name for path in commit}


def test_whole_commits_are_not_looked_up_in_the_table(lakehouse, add) -> None:
    for version in range(2):
        add([*chain(f"one-{version}", mixed_pairs(), []), *chain(f"two-{version}", [])], version, files=2)
    first = lakehouse.read("syntheses").where("chain_id IN ('one-0', 'two-0')").collect()
    batch = lakehouse._session().createDataFrame(first, lakehouse.read("syntheses").schema)
    found = chain_rows(batch, Job(lakehouse, "augment", AugmentConfig(), lakehouse._session))
    assert sorted(
        (row["chain_id"], row["round"], row["arrived"], len(row["responses"])) for row in found.collect()
    ) == [
        ("one-0", 0, None, len(mixed_pairs())),
        ("one-0", 1, None, 0),
        ("two-0", 0, None, 0),
    ]
    # Were a row of the commit missing, chains would have to be told apart.
    batch = batch.where("chain_id != 'two-0'")
    found = chain_rows(batch, Job(lakehouse, "augment", AugmentConfig(), lakehouse._session))
    assert {(row["chain_id"], row["arrived"]) for row in found.collect()} == {("one-0", 1)}
