"""The whole path on a small almanac: real Spark, Delta, vLLM, DeepSpeed and MLflow."""

import json
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs.lakehouse.tables import TABLES
from jobs.pipeline import load_pipeline
from tests.e2e.conftest import PIPELINE, rows, run, version
from udfs.shards.format import ShardReader
from udfs.shards.manifest import read_manifest, verify
from udfs.tokens import load_tokenizer


def test_every_raw_text_arrives_and_keys_are_unique(undisturbed: Path):
    written = [json.loads(line) for file in (undisturbed / "almanac/raw").rglob("*.jsonl") for line in file.open()]
    assert sorted(row["text"] for row in rows(undisturbed, "raw_documents")) == sorted(row["text"] for row in written)
    for table in ("raw_documents", "documents", "syntheses", "augmented_texts", "tuning_examples", "instructions"):
        keys = Counter(tuple(row[name] for name in TABLES[table].key) for row in rows(undisturbed, table))
        assert keys and max(keys.values()) == 1, table


def test_every_document_to_convert_is_accounted_for_and_rendered(undisturbed: Path):
    documents = {(row["doc_id"], row["chunk"]): row for row in rows(undisturbed, "documents")}
    syntheses = rows(undisturbed, "syntheses")
    rejected = [row for row in rows(undisturbed, "rejects") if row["stage"] == "synthesize"]
    assert len(syntheses) + len(rejected) == len(documents)
    assert {row["context"] for row in syntheses} <= {row["text"] for row in documents.values()}
    rendered = Counter(part for row in rows(undisturbed, "augmented_texts") for part in row["doc_ids"])
    assert rendered == Counter(f"{row['doc_id']}:{row['chunk']}" for row in syntheses)
    for row in syntheses:
        assert row["engine"]["model"] and row["engine"]["revision"] and row["n_prompt_tokens"] > 0


def test_carryover_rounds_see_the_rounds_before(undisturbed: Path):
    syntheses = rows(undisturbed, "syntheses")
    assert {row["round"] for row in syntheses} == {0, 1}
    by_chain: dict[str, dict[int, dict]] = {}
    for row in syntheses:
        by_chain.setdefault(row["chain_id"], {})[row["round"]] = row
    for chain in by_chain.values():
        assert chain[0]["carried"] == []
        if 1 in chain and chain[0]["pairs"]:
            first = chain[0]
            assert chain[1]["carried"] in ([f"{first['doc_id']}:{first['chunk']}"], [])
            assert len({row["source"] for row in chain.values()}) == 1


@pytest.mark.parametrize("name", ["raw", "augmented", "tuning"])
def test_shards_hold_every_text_once_between_bos_and_eos(undisturbed: Path, name: str):
    folder = undisturbed / "shards" / name
    manifest = read_manifest(folder)
    assert verify(folder) == []
    tokenizer = load_tokenizer(undisturbed / "tokenizer")
    tokens = bos = eos = 0
    for shard in manifest.shards:
        reader = ShardReader(folder / shard.path)
        for number in range(len(reader)):
            ids = reader.input_ids(number)[: reader.lengths(number).sum()]
            tokens += len(ids)
            bos += int((ids == tokenizer.bos_id).sum())
            eos += int((ids == tokenizer.eos_id).sum())
    assert tokens == manifest.tokens and bos == eos == manifest.documents
    if name != "tuning":
        table = {"raw": "documents", "augmented": "augmented_texts"}[name]
        expected = sum(len(tokenizer.encode(row["text"])) + 2 for row in rows(undisturbed, table))
        assert tokens == expected, "trained tokens must equal the sum over the documents"


def test_models_load_and_their_runs_are_tracked(undisturbed: Path, monkeypatch: pytest.MonkeyPatch):
    from mlflow.tracking import MlflowClient
    from transformers import AutoModelForCausalLM, AutoTokenizer

    client = MlflowClient(f"sqlite:///{undisturbed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("instruction-pretraining")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    monkeypatch.setenv("IPT_TEST_ROOT", str(undisturbed))
    steps = [step.name for step in load_pipeline(PIPELINE).steps]
    assert set(steps) <= set(runs)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for name in ("tune", "vanilla", "instruct"):
        folder = undisturbed / "models" / name / "model"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
        assert runs[name].data.metrics["loss"] > 0
        assert runs[name].inputs.dataset_inputs, "a training run names its data"
    assert runs["synthesize"].data.tags["delta.written.syntheses"] == str(version(undisturbed, "syntheses"))
    assert runs["synthesize"].data.metrics["syntheses"] == len(rows(undisturbed, "syntheses"))


def test_report_is_one_page_that_needs_nothing_else(undisturbed: Path):
    page = (undisturbed / "report" / "index.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page and "http://" not in page.replace("http://127.0.0.1", "")
    assert "<script src" not in page and "<link" not in page


def test_a_second_run_adds_nothing(undisturbed: Path):
    before = {table: version(undisturbed, table) for table in TABLES}
    models = {path: path.stat().st_mtime for path in (undisturbed / "models").rglob("*.safetensors")}
    run(undisturbed, "run")
    changed = {table for table in TABLES if DeltaTable(str(undisturbed / "tables" / table)).version() != before[table]}
    assert changed == set()
    assert {path: path.stat().st_mtime for path in (undisturbed / "models").rglob("*.safetensors")} == models
