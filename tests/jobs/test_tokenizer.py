import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.tables import PROVENANCE, TABLES
from jobs.tokenizer import READS, VERB, TokenizerConfig
from udfs.config import build
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.tokens import load_tokenizer

RunVerb = Callable[..., dict[str, float]]


def fill(lakehouse: Lakehouse, spark: Any, numbers: range) -> None:
    documents = [
        {
            "doc_id": f"d{number}",
            "source": "towns",
            "domain": "geography",
            "uri": "file",
            "text": f"Elm {number} was founded in {1500 + number} by fishermen from the harbour.",
        }
        for number in numbers
    ]
    examples = [
        {
            "example_id": f"e{number}",
            "dataset": "squad",
            "context": f"Elm {number} lies by the sea.",
            "QA_list": [{"Q": f"Where is Elm {number}?", "A": "By the sea."}],
            "n_pairs": 1,
            "uri": "file",
        }
        for number in numbers
    ]
    for table, rows in (("raw_documents", documents), ("tuning_examples", examples)):
        names = TABLES[table].schema.fieldNames()
        frame = spark.createDataFrame([{name: row.get(name) for name in names} for row in rows], TABLES[table].schema)
        for column in PROVENANCE:
            value = "current_timestamp()" if column.name == "written_at" else "'test'"
            frame = frame.selectExpr("*", f"{value} as {column.name}")
        lakehouse.append(frame, table, "test", numbers.start)


def test_a_tokenizer_is_trained_once_and_again_when_texts_come(
    lakehouse: Lakehouse, spark: Any, run_verb: RunVerb
) -> None:
    with pytest.raises(DataError, match="no table of raw_documents, tuning_examples"):
        run_verb("tokenizer", {"vocab_size": 320})
    fill(lakehouse, spark, range(40))
    counts = run_verb("tokenizer", {"vocab_size": 320})
    assert counts == {"vocab_size": 320, "texts/raw_documents": 40, "texts/tuning_examples": 40}
    first = load_tokenizer(lakehouse.path("tokenizer"))
    # The synthesizer's markers are frequent, and so short.
    assert len(first.encode(" <QUE>")) < len(" <QUE>")

    written = (lakehouse.path("tokenizer", "tokenizer.json")).stat().st_mtime_ns
    assert run_verb("tokenizer", {"vocab_size": 320}) == {"vocab_size": 320}
    assert (lakehouse.path("tokenizer", "tokenizer.json")).stat().st_mtime_ns == written

    fill(lakehouse, spark, range(40, 60))
    counts = run_verb("tokenizer", {"vocab_size": 320, "max_texts": 30})
    assert 15 < counts["texts/raw_documents"] < 45
    assert load_tokenizer(lakehouse.path("tokenizer")).hash != first.hash
    assert [path.name for path in lakehouse.root.iterdir() if path.name.startswith(".")] == []


def test_an_existing_tokenizer_is_taken(lakehouse: Lakehouse, run_verb: RunVerb, tmp_path: Path) -> None:
    pytest.importorskip("mistral_common")
    settings = {"existing": "package:mistral_common/data/tokenizer.model.v1", "output": "mistral"}
    assert run_verb("tokenizer", settings) == {"vocab_size": 32_000}
    folder = lakehouse.path("mistral")
    assert load_tokenizer(folder).vocab_size == 32_000
    assert run_verb("tokenizer", {"existing": str(folder)}) == {"vocab_size": 32_000}
    assert load_tokenizer(lakehouse.path("tokenizer")).hash == load_tokenizer(folder).hash
    for package in ("no_such_package", "no_such_package.part", "..part"):
        with pytest.raises(EnvironmentProblem, match=f"'{package}' is not installed"):
            run_verb("tokenizer", {"existing": f"package:{package}/x"})


def test_tables_made_again_at_the_same_version_give_another_tokenizer(
    lakehouse: Lakehouse, spark: Any, run_verb: RunVerb
) -> None:
    hashes = []
    for numbers in (range(40), range(400, 440)):
        shutil.rmtree(lakehouse.root / "tables", ignore_errors=True)
        lakehouse._ensured.clear()
        fill(lakehouse, spark, numbers)
        assert lakehouse.version("raw_documents") == 1
        run_verb("tokenizer", {"vocab_size": 320})
        hashes.append(load_tokenizer(lakehouse.path("tokenizer")).hash)
    assert hashes[0] != hashes[1]


def test_only_a_tokenizer_that_is_trained_reads_tables() -> None:
    assert VERB.inputs(TokenizerConfig(vocab_size=300)) == READS
    assert VERB.inputs(TokenizerConfig(existing="folder")) == ()


def test_a_folder_made_by_someone_else_is_left_alone(lakehouse: Lakehouse, run_verb: RunVerb) -> None:
    pytest.importorskip("mistral_common")
    lakehouse.path("tokenizer").mkdir(parents=True)
    with pytest.raises(ConfigError, match="was not made by this step"):
        run_verb("tokenizer", {"existing": "package:mistral_common/data/tokenizer.model.v1"})


@pytest.mark.parametrize("settings", [{}, {"vocab_size": 300, "existing": "x"}, {"vocab_size": 100}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="vocab_size"):
        build(TokenizerConfig, settings, "tokenizer")
