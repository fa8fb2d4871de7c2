"""The shard verb through Spark and Delta."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.tables import PROVENANCE, TABLES
from jobs.shard import VERB, ShardConfig
from udfs.config import build
from udfs.errors import ConfigError, DataError
from udfs.shards.format import ShardReader
from udfs.shards.manifest import MANIFEST, read_manifest, verify
from udfs.tokens import Tokenizer, train_tokenizer

RunVerb = Callable[..., dict[str, float]]
SETTINGS: dict[str, Any] = {"table": "documents", "sequence_length": 64, "shard_bytes": 4096}


def text_of(number: int) -> str:
    return f"The town of Elm {number} was founded in {1500 + number}. " * (1 + number % 5)


def document(number: int) -> dict[str, Any]:
    return {
        "doc_id": f"doc{number:04d}",
        "chunk": 0,
        "source": "towns" if number % 2 else "rivers",
        "domain": "geography",
        "language": None,
        "arm": "raw" if number % 4 else "convert",
        "n_tokens": 1,
        "content_hash": str(number),
        "license": "CC0-1.0" if number % 2 else None,
        "text": text_of(number),
    }


def example(number: int) -> dict[str, Any]:
    return {
        "example_id": f"example{number}",
        "dataset": "squad" if number % 3 else "race",
        "context": f"Elm {number} lies by the sea. " * (400 if number == 7 else 1),
        "QA_list": [{"Q": f"Where is Elm {number}?", "A": "By the sea."}],
        "n_pairs": 1,
        "license": "MIT",
        "uri": f"file:{number}",
    }


def fill(lakehouse: Lakehouse, spark: Any, table: str, rows: list[dict[str, Any]], version: int = 0) -> None:
    frame = spark.createDataFrame(rows, TABLES[table].schema)
    for column in PROVENANCE:
        value = "current_timestamp()" if column.name == "written_at" else "'test'"
        frame = frame.selectExpr("*", f"{value} as {column.name}")
    lakehouse.append(frame, table, "test", version)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([text_of(number) for number in range(20)], 350)


@pytest.fixture
def filled(lakehouse: Lakehouse, spark: Any, tokenizer: Tokenizer) -> Lakehouse:
    tokenizer.save(lakehouse.path("tokenizer"))
    fill(lakehouse, spark, "documents", [document(number) for number in range(200)])
    return lakehouse


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def documents_in(folder: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for shard in read_manifest(folder).shards:
        reader = ShardReader(folder / shard.path)
        for row in range(len(reader)):
            for name, ids in reader.documents(row):
                found.setdefault(name, []).extend(ids.tolist())
    return found


def test_a_set_holds_every_chosen_text_once(filled: Lakehouse, run_verb: RunVerb, tokenizer: Tokenizer) -> None:
    counts = run_verb("shard", {**SETTINGS, "filter": {"arm": ["raw"]}}, step="shard-raw")
    folder = filled.path("shards", "raw")
    manifest = read_manifest(folder)
    assert verify(folder) == []
    assert len(manifest.shards) > 2
    assert manifest.source.table == "documents"
    assert manifest.source.version == filled.version("documents")
    assert manifest.source.filter == {"arm": ["raw"]}
    assert manifest.source.table_id == filled.identity("documents")
    assert [(content.source, content.licenses, content.texts) for content in manifest.contents] == [
        ("rivers", ["unknown"], 50),
        ("towns", ["CC0-1.0"], 100),
    ]

    chosen = {f"doc{number:04d}:0": text_of(number) for number in range(200) if number % 4}
    found = documents_in(folder)
    expected = {name: len(tokenizer.encode(text)) + 2 for name, text in chosen.items()}
    assert {name: len(ids) for name, ids in found.items()} == expected
    assert manifest.tokens == counts["tokens"] == sum(expected.values())
    assert manifest.documents == len(chosen)
    # Texts are shuffled across the set, not in the order of the table.
    assert list(found) != sorted(found)

    rows = filled.read("token_shards").collect()
    assert {row["path"] for row in rows} == {shard.path for shard in manifest.shards}
    assert {(row["shard_set"], row["fingerprint"]) for row in rows} == {("raw", manifest.fingerprint)}
    assert sum(row["tokens"] for row in rows) == manifest.tokens


def test_the_same_again_is_nothing_and_a_change_replaces(
    filled: Lakehouse, spark: Any, run_verb: RunVerb, tokenizer: Tokenizer
) -> None:
    folder = filled.path("shards", "all")
    run_verb("shard", SETTINGS, step="shard-all")
    before, old = contents(folder), read_manifest(folder)
    assert run_verb("shard", SETTINGS, step="shard-all")["unchanged"] == 1.0
    assert contents(folder) == before

    fill(filled, spark, "documents", [document(number) for number in range(200, 210)], version=1)
    counts = run_verb("shard", SETTINGS, step="shard-all")
    assert "unchanged" not in counts
    assert counts["documents"] == 210
    assert verify(folder) == []
    # Nothing of the old set is left to be read by mistake.
    assert set(contents(folder)) == {MANIFEST, *(shard.path for shard in read_manifest(folder).shards)}
    with pytest.raises(DataError, match="Has the set been replaced"):
        ShardReader(folder / old.shards[0].path)


def test_a_table_made_again_at_the_same_version_is_another_table(
    filled: Lakehouse, spark: Any, run_verb: RunVerb
) -> None:
    run_verb("shard", SETTINGS, step="shard-all")
    version, old = filled.version("documents"), read_manifest(filled.path("shards", "all"))
    shutil.rmtree(filled.location("documents"))
    filled._ensured.clear()
    fill(filled, spark, "documents", [document(number) for number in range(300, 500)])
    assert filled.version("documents") == version
    assert "unchanged" not in run_verb("shard", SETTINGS, step="shard-all")
    new = read_manifest(filled.path("shards", "all"))
    assert new.source.table_id != old.source.table_id
    assert set(documents_in(filled.path("shards", "all"))) == {f"doc{number:04d}:0" for number in range(300, 500)}


def test_the_command_names_damaged_files_and_exits_with_1(
    filled: Lakehouse, run_verb: RunVerb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"verb": "shard", **SETTINGS}
    pipeline = tmp_path / "pipeline.yaml"
    steps = {"shard-all": settings, "shard-none": settings}
    pipeline.write_text(json.dumps({"lakehouse": {"root": str(filled.root)}, "steps": steps}))
    command = ["shard", "--config", str(pipeline), "--verify", "--step", "shard-all"]
    run_verb("shard", SETTINGS, step="shard-all")
    assert main(command) == 0
    folder = filled.path("shards", "all")
    damaged = read_manifest(folder).shards[1].path
    content = bytearray((folder / damaged).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / damaged).write_bytes(content)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"all: {damaged} has the right size, but its content has changed" in said
    assert said.count("ipt:") == 1
    assert main([*command[:-1], "shard-none"]) == 1
    assert "there is no shard set in" in capsys.readouterr().err


def test_the_command_shows_where_a_token_came_from(
    lakehouse: Lakehouse, spark: Any, run_verb: RunVerb, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.save(lakehouse.path("tokenizer"))
    pairs = [{"instruction": f"When was Elm {n} founded?", "response": f"In {1500 + n}.", "format": ""} for n in (1, 2)]
    links = [
        {
            "chain_id": "chain",
            "round": number + 1,
            "chain_length": 3,
            "doc_id": f"doc{number}",
            "chunk": 0,
            "source": "towns",
            "domain": "geography",
            "sample": 0,
            "carried": [],
            "status": "ok",
            "n_prompt_tokens": 1,
            "n_cached_tokens": 0,
            "n_completion_tokens": 1,
            "rejected_pairs": [],
            "engine": {"name": "none"},
            "completion": "",
            "context": f"The town of Elm {number} lies by the sea. [red]Fish[/red] is caught there.",
            "pairs": [pairs[number]],
        }
        for number in range(2)
    ]
    # A document without pairs is a text of its own, also where another one repeats it.
    links.append(links[0] | {"round": 0, "doc_id": "doc2", "context": "The town of Elm", "pairs": []})
    raw = [
        {
            "doc_id": f"doc{n}",
            "source": "towns",
            "domain": "d",
            "uri": f"/towns.jsonl#{n}",
            "text": "x",
            "license": "MIT",
        }
        for n in range(2)
    ]
    for table, rows in (("syntheses", links), ("raw_documents", raw)):
        declared = [column.name for column in TABLES[table].columns]
        fill(lakehouse, spark, table, [dict.fromkeys(declared) | entry for entry in rows])
    run_verb("augment", {})
    settings = {"table": "augmented_texts", "sequence_length": 512, "partitions": 1}
    run_verb("shard", settings, step="shard-augmented")
    folder = lakehouse.path("shards", "augmented")
    (entry,) = read_manifest(folder).shards
    reader = ShardReader(folder / entry.path)
    texts = [tokenizer.decode([token]) for token in reader.input_ids(0).tolist()]
    config = build(ShardConfig, settings, "shard")
    job = Job(lakehouse, "shard-augmented", config, lambda: spark)
    for number in range(2):
        token = "".join(texts).index(f"Elm {number} lies")
        place = next(index for index in range(len(texts)) if len("".join(texts[: index + 1])) > token)
        VERB.trace(config, job, f"{entry.path}:0:{place}")  # type: ignore[misc]
        said = capsys.readouterr().out
        assert f"round     {number + 1}, of 0 to 2" in said
        assert f"doc{number}:0  /towns.jsonl#{number} (MIT)  <- this token" in said
        assert said.count("<- this token") == 1
        assert "[red]Fish[/red]" in said


def test_lost_files_are_made_again_with_the_same_bytes(filled: Lakehouse, run_verb: RunVerb) -> None:
    folder = filled.path("shards", "all")
    run_verb("shard", SETTINGS, step="shard-all")
    before, rows = contents(folder), filled.read("token_shards").count()
    shutil.rmtree(folder / read_manifest(folder).shards[0].path.split("/")[0])
    run_verb("shard", SETTINGS, step="shard-all")
    assert contents(folder) == before
    assert filled.read("token_shards").count() == rows


def test_a_set_behind_a_url(filled: Lakehouse, spark: Any, tmp_path: Path) -> None:
    from jobs.lakehouse.config import LakehouseConfig
    from trainer.config import DataConfig
    from trainer.data.sources import ShardSet

    url = f"file://{tmp_path}/store"
    lakehouse = Lakehouse(LakehouseConfig(root=str(filled.root), shards=url), lambda: spark)
    place = lakehouse.shard_set("all")
    assert place == f"{url}/all"
    assert VERB.run is not None

    def run(**changes: Any) -> dict[str, float]:
        config = build(ShardConfig, SETTINGS | changes, "shard")
        return VERB.run(config, Job(lakehouse, "shard-all", config, lambda: spark))  # type: ignore[misc]

    assert run()["documents"] == 200 and verify(place) == []
    assert run()["unchanged"] == 1.0
    assert not lakehouse.path("shards").exists()
    run(seed=1)
    # Nothing of the old set is left, and the trainer reads the new one through its cache.
    named = {shard.path for shard in read_manifest(place).shards}
    assert set(contents(tmp_path / "store" / "all")) == {MANIFEST, *named}
    data = DataConfig(sources={"all": {"path": place}}, cache_dir=str(tmp_path / "cache"))  # type: ignore[dict-item]
    rows = ShardSet(place, data)
    reader, row = rows.locate(len(rows) - 1)
    assert int(reader.lengths(row).sum()) > 0


def test_tuning_examples_with_roles(lakehouse: Lakehouse, spark: Any, run_verb: RunVerb, tokenizer: Tokenizer) -> None:
    tokenizer.save(lakehouse.path("tokenizer"))
    fill(lakehouse, spark, "tuning_examples", [example(number) for number in range(30)])
    settings = {"table": "tuning_examples", "sequence_length": 512, "roles": True, "shots": 3}
    counts = run_verb("shard", settings, step="shard-tuning")
    folder = lakehouse.path("shards", "tuning")
    manifest = read_manifest(folder)
    assert manifest.has_roles
    assert manifest.documents == 29
    assert counts["rejects"] == 1
    names = [name for sequence in documents_in(folder) for name in sequence.split("+")]
    assert sorted(names) == sorted(f"example{number}" for number in range(30) if number != 7)
    (row,) = lakehouse.read("rejects").collect()
    assert (row["record_id"], row["reason"]) == ("example7", "does_not_fit")

    run_verb("shard", {"table": "tuning_examples", "sequence_length": 512}, step="shard-mix")
    natural = read_manifest(lakehouse.path("shards", "mix"))
    assert (natural.has_roles, natural.documents) == (False, 30)


def test_a_filter_that_takes_nothing_is_said(filled: Lakehouse, run_verb: RunVerb) -> None:
    with pytest.raises(DataError, match=r"no text of documents .*nowhere"):
        run_verb("shard", {**SETTINGS, "filter": {"source": ["nowhere"]}}, step="shard-none")
    assert not filled.path("shards", "none", MANIFEST).exists()
    with pytest.raises(DataError, match="table instructions does not exist"):
        run_verb("shard", {**SETTINGS, "table": "instructions"}, step="shard-none")


def test_a_value_of_a_filter_that_takes_nothing_is_said(
    filled: Lakehouse, run_verb: RunVerb, caplog: pytest.LogCaptureFixture
) -> None:
    taken = {"source": ["towns", "nowhere"], "domain": ["geography"]}
    with caplog.at_level("INFO", "ipt"):
        assert run_verb("shard", {**SETTINGS, "filter": taken}, step="shard-some")["documents"] == 100
    assert [entry for entry in caplog.messages if "filter." in entry] == [
        "shard-some: filter.source: no text of documents has nowhere"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "rejects"}, "table"),
        ({"filter": {"dataset": ["squad"]}}, "documents has no such column"),
        ({"filter": {"arm": ["both"]}}, "arm"),
        ({"filter": {"where": "1 = 1"}}, "unknown key"),
        ({"roles": True}, "only tuning_examples"),
        ({"shots": 2}, "roles: true"),
        ({"table": "tuning_examples", "roles": True, "packing": "concatenate"}, "best_fit"),
        ({"name": "../out"}, "name"),
        ({"sequence_length": 0}, "sequence_length"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ShardConfig, {**SETTINGS, **change}, "shard")


RUN = """
import json, sys
from jobs.lakehouse.config import LakehouseConfig
from jobs.cli import main
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.session import load_target, start
from jobs.lakehouse.job import Job
from jobs.shard import ShardConfig, shard
spark = start(load_target("local"), "killed")
lakehouse = Lakehouse(LakehouseConfig(root=sys.argv[1]), lambda: spark)
config = ShardConfig(**json.loads(sys.argv[2]))
print(shard(config, Job(lakehouse, "shard-all", config, lambda: spark)), flush=True)
"""


def test_killed_and_started_again_gives_the_same_set(
    filled: Lakehouse, spark: Any, run_verb: RunVerb, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "partitions": 12, "shard_bytes": 1024}
    run_verb("shard", settings, step="shard-all")
    folder = filled.path("shards", "all")
    undisturbed, rows = contents(folder), filled.read("token_shards").count()

    other = tmp_path / "other"
    shutil.copytree(filled.path("tables", "documents"), other / "tables" / "documents")
    shutil.copytree(filled.path("tokenizer"), other / "tokenizer")
    command = [sys.executable, "-c", RUN, str(other), json.dumps(settings)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        # Killed when the first shards are there and most are not.
        while not list(other.rglob("*.arrow")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGKILL)
    assert not (other / "shards" / "all" / MANIFEST).exists()

    subprocess.run(command, check=True, capture_output=True)
    again = contents(other / "shards" / "all")
    assert set(again) == set(undisturbed)
    assert {path: again[path] for path in again if path != MANIFEST} == {
        path: undisturbed[path] for path in undisturbed if path != MANIFEST
    }
    mine, theirs = read_manifest(other / "shards" / "all"), read_manifest(folder)
    assert mine.model_copy(update={"source": theirs.source}) == theirs
    table = spark.read.format("delta").load(str(other / "tables" / "token_shards"))
    assert table.count() == rows
