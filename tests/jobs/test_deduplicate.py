"""``deduplicate`` on a real table."""

import pytest

from jobs.lakehouse.tables import PROVENANCE, SYNTHESES
from tests.jobs.test_reparse import synthesis
from udfs.synthesis.pairs import build, make_pair

LONG = "Which of the keepers of the old lighthouse of Norwick was the last one to live on the rock in front of it?"
OTHER = "Since which year can the ferries of the northern line be paid for with the coins of the islands?"


@pytest.fixture
def fill(spark, lakehouse):
    from pyspark.sql import functions as F

    def write(completions: list[str], version: int = 0) -> None:
        rows = [synthesis(10 * version + number, completion) for number, completion in enumerate(completions)]
        frame = spark.createDataFrame(rows, SYNTHESES.schema)
        for column in PROVENANCE:
            value = F.current_timestamp() if column.name == "written_at" else F.lit("first")
            frame = frame.withColumn(column.name, value)
        lakehouse.append(frame, "syntheses", "test", version)

    return write


def test_of_pairs_that_are_nearly_the_same_one_stays(lakehouse, run_verb, fill):
    fill(
        [
            build([make_pair(LONG, "Ada Holm"), make_pair(OTHER, "1987")]),
            build([make_pair(LONG.replace("last one", "very last one"), "Ada Holm.")]),
            build([make_pair("Who?", "the ferry"), make_pair(LONG.upper(), "ada holm")]),
            build([make_pair(OTHER, "It is not known to anybody in the harbour, and never was in all the years")]),
            "nothing",
        ]
    )
    version = lakehouse.version("syntheses")
    counts = run_verb("deduplicate", {}, step="again")
    assert counts == {"pairs": 6, "near_duplicates": 2}
    rows = {row["round"]: row.asDict(recursive=True) for row in lakehouse.read("syntheses").collect()}
    assert [len(rows[number]["pairs"]) for number in range(5)] == [2, 0, 1, 1, 0]
    assert [row["status"] for _, row in sorted(rows.items())] == ["ok", "no_pairs", "ok", "ok", "no_pairs"]
    assert rows[2]["rejected_pairs"] == [
        {"text": build([make_pair(LONG.upper(), "ada holm")]), "reason": "near_duplicate"}
    ]
    assert {number: row["step"] for number, row in rows.items()} == {
        0: "first", 1: "again", 2: "again", 3: "first", 4: "first"
    }  # fmt: skip
    assert lakehouse.version("syntheses") == version + 1
    assert run_verb("deduplicate", {})["near_duplicates"] == 0
    assert lakehouse.version("syntheses") == version + 1
    # The chain is whole still, for the step after this one.
    run_verb("augment", {})
    (text,) = lakehouse.read("augmented_texts").filter("mode != 'raw'").collect()
    assert (text["n_shots"], text["n_pairs"]) == (3, 4)
    # The completions are still there.
    assert run_verb("reparse", {})["pairs_after"] == 6


def test_nothing_to_compare(lakehouse, run_verb):
    assert run_verb("deduplicate", {}) == {"pairs": 0, "near_duplicates": 0}
