import contextlib
import os
import signal
import threading
from collections import defaultdict
from itertools import groupby
from math import ceil
from pathlib import Path

import pytest
from pyspark.errors import PySparkException

from jobs.cli import main
from jobs.lakehouse.job import Job
from jobs.lakehouse.lock import StepLock
from jobs.runner import Runner
from jobs.synthesize import SynthesizeConfig, estimate, preview, preview_rows, with_chains
from tests.synthesizers import text_about
from udfs.config import build
from udfs.errors import ConfigError, EnvironmentProblem
from udfs.hashing import unit
from udfs.synthesis.journal import _FIELDS, _lines
from udfs.tokens import train_tokenizer

COLUMNS = (
    "doc_id string, chunk int, source string, domain string, language string, arm string, n_tokens int, "
    "content_hash string, license string, text string"
)


def document(number: int, arm: str = "convert", text: str | None = None) -> tuple:
    text = text_about("job", number) if text is None else text
    return (f"d{number:03}", number % 2, "ab"[number % 5 == 0], "any", None, arm, 1, f"h{number}", None, text)


def fill(lakehouse, spark, documents: list[tuple], version: int = 0, files: int = 2) -> None:
    job = Job(lakehouse, "curate", SynthesizeConfig(engine={"model": "m"}), lambda: spark, run_id="test")
    frame = job.with_provenance(spark.createDataFrame(documents, COLUMNS).repartition(files))
    lakehouse.append(frame, "documents", "test", version)


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"partitions": 0}, {"round": 2}])
def test_bad_settings(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        build(SynthesizeConfig, {"engine": {"model": "m"}, **bad}, "synthesize")


def test_an_engine_is_told_by_its_name():
    with pytest.raises(ConfigError, match=r"synthesize\.engine\.model: unknown key.*language"):
        build(SynthesizeConfig, {"engine": {"name": "rules", "model": "m"}}, "synthesize")
    with pytest.raises(ConfigError, match=r"max_num_seqs"):
        build(SynthesizeConfig, {"engine": {"model": "m", "max_num_seq": 2}}, "synthesize")
    with pytest.raises(ConfigError, match=r"vllm.*rules"):
        build(SynthesizeConfig, {"engine": {"name": "none"}}, "synthesize")


@pytest.mark.parametrize(("rounds", "partitions"), [(2, 1), (3, 3), (1, 2)])
def test_chains_are_whole_ordered_and_the_same_in_any_order(spark, rounds, partitions):
    documents = [document(n) for n in range(50)]

    def members(rows: list[tuple], seed: int = 0) -> tuple[dict, list]:
        frame = with_chains(spark.createDataFrame(rows, COLUMNS).repartition(2), rounds, partitions, seed)
        assert frame.rdd.getNumPartitions() == partitions
        parts = frame.rdd.glom().collect()
        chains = defaultdict(list)
        for part in parts:
            keys = [row["chain_key"] for row in part]
            assert len(set(keys)) == sum(index == 0 or keys[index - 1] != key for index, key in enumerate(keys))
            for row in part:
                chains[row["chain_key"]].append((row["round"], row["doc_id"], row["source"]))
        return dict(chains), parts

    chains, parts = members(documents)
    assert sorted(doc for chain in chains.values() for _, doc, _ in chain) == [one[0] for one in documents]
    for chain in chains.values():
        assert [position for position, _, _ in chain] == list(range(len(chain)))
        assert len({source for _, _, source in chain}) == 1
    for source in "ab":
        documents_there = sum(one[2] == source for one in documents)
        assert sum(key["source"] == source for key in chains) == ceil(documents_there / rounds)
    assert [{row["partition"] for row in part} for part in parts] == [{index} for index in range(partitions)]
    assert members(documents[::-1])[0] == chains
    assert members(documents, seed=1)[0] != chains


def test_chains_do_not_depend_on_partitions_which_have_equal_shares_of_tokens(spark):
    rows = [(*document(n)[:6], 10 + n * n % 997, *document(n)[7:]) for n in range(120)]

    def parts(partitions: int) -> list:
        return with_chains(spark.createDataFrame(rows, COLUMNS), 3, partitions, 0).rdd.glom().collect()

    def chains(found: list) -> set:
        members = defaultdict(list)
        for row in (row for part in found for row in part):
            members[row["chain_key"]].append(row["doc_id"])
        return {tuple(chain) for chain in members.values()}

    alone, shared = parts(1), parts(4)
    assert chains(alone) == chains(shared)
    shares = [sum(row["n_tokens"] for row in part) for part in shared]
    assert max(shares) < 1.05 * sum(shares) / 4
    lengths = defaultdict(int)
    for row in alone[0]:
        lengths[row["chain_key"]] += row["n_tokens"]
    assert list(lengths.values()) == sorted(lengths.values(), reverse=True), "the longest chain first"


def test_samples_are_chains_of_the_same_documents_side_by_side(spark):
    rows = [document(n) for n in range(20)]
    parts = with_chains(spark.createDataFrame(rows, COLUMNS), 3, 2, 0, samples=4).rdd.glom().collect()
    for part in parts:
        chains = {key: [row["doc_id"] for row in rows] for key, rows in groupby(part, key=lambda row: row["chain_key"])}
        assert [key["sample"] for key in chains] == [0, 1, 2, 3] * (len(chains) // 4)
        assert all(key["sample"] == row["sample"] for key in chains for row in part if row["chain_key"] == key)
        members = list(chains.values())
        assert all(members[place] == members[place - place % 4] for place in range(len(members)))
    alone = with_chains(spark.createDataFrame(rows, COLUMNS), 3, 2, 0).rdd.glom().collect()
    first = [[(row["doc_id"], row["round"]) for row in part if row["sample"] == 0] for part in parts]
    assert first == [[(row["doc_id"], row["round"]) for row in part] for part in alone]


@pytest.mark.parametrize("engine", [{"model": "m"}, {"name": "rules"}])
def test_samples_need_sampling(engine):
    with pytest.raises(ConfigError, match=r"samples 2.*engine\.temperature"):
        build(SynthesizeConfig, {"engine": engine, "samples": 2}, "synthesize")


def test_a_second_run_is_refused_while_the_first_lives(spark, lakehouse, run_verb, engine_settings):
    fill(lakehouse, spark, [document(0)])
    with (
        StepLock(lakehouse.step_path("synthesize", "lock"), "synthesize"),
        pytest.raises(EnvironmentProblem, match="step synthesize is being run by process"),
    ):
        run_verb("synthesize", {"engine": engine_settings})
    assert lakehouse.read("syntheses").count() == 0


def _finished(folder: Path) -> int:
    return sum(file.read_bytes().count(b' ["completion",') for file in folder.glob("*.jsonl"))


def _kill_the_worker(folder: Path, completions: int, ended: threading.Event) -> None:
    """SIGKILL for the Python worker that writes the journal, as soon as it holds so many completions."""
    while not ended.wait(0.01):
        if _finished(folder) < completions:
            continue
        files = list(folder.glob("*.jsonl"))
        for links in Path("/proc").glob("[0-9]*/fd"):
            with contextlib.suppress(OSError):
                if {os.readlink(link) for link in links.iterdir()} & {str(file) for file in files}:
                    os.kill(int(links.parent.name), signal.SIGKILL)
                    return


def test_killed_workers_lose_what_was_with_the_engine_and_nothing_else(spark, lakehouse, run_verb, engine_settings):
    """At random moments of a micro-batch; IPT_KILLS says how often, IPT_KILL_SEED when."""
    kills, draw = int(os.environ.get("IPT_KILLS", "1")), os.environ.get("IPT_KILL_SEED", "0")
    settings = {"engine": engine_settings, "rounds": 3}
    documents = [document(n) for n in range(90)]
    fill(lakehouse, spark, documents)
    folder = lakehouse.step_path("synthesize", "journal")
    for kill in range(kills):
        present = _finished(folder)
        ended = threading.Event()
        moment = present + 1 + int(unit("kill", draw, kill) * (70 - present) / (kills - kill))
        killer = threading.Thread(target=_kill_the_worker, args=(folder, moment, ended))
        killer.start()
        with contextlib.suppress(PySparkException):
            run_verb("synthesize", settings)
        ended.set()
        killer.join()
    assert lakehouse.read("syntheses").count() == 0, "killed before the micro-batch was in the table"
    finished = [line for file in folder.glob("*.jsonl") for line in _lines(file) if line[0] == "completion"]
    keys = [key for _, key, *_ in finished]
    assert len(set(keys)) == len(keys) > 0
    before = sum(line[2 + _FIELDS.index("n_tokens")] for line in finished)

    counts = run_verb("synthesize", settings)
    rows = lakehouse.read("syntheses").collect()
    chained = with_chains(spark.createDataFrame(documents, COLUMNS), 3, 1, 0).collect()
    assert sorted((row["doc_id"], row["chunk"], row["round"]) for row in rows) == sorted(
        (row["doc_id"], row["chunk"], row["round"]) for row in chained
    )
    assert counts["progress/recovered"] == len(finished) and counts["progress/documents"] == 90 - len(finished)
    # vLLM's own counter of the last run: what is in the table and was not there before.
    assert counts["engine/generated_tokens"] == sum(row["n_completion_tokens"] for row in rows) - before
    in_flight = ceil(1.1 * engine_settings["max_num_seqs"]) * engine_settings["max_tokens"]
    assert 0 <= counts["engine/lost_tokens"] <= kills * in_flight
    assert not folder.exists()
    assert 0 < counts["engine/occupancy"] <= 1 and 0 < counts["engine/prefix_hit_rate"] < 1


def test_synthesize_end_to_end(spark, lakehouse, run_verb, engine_settings, capsys):
    settings = {"engine": engine_settings, "rounds": 3}
    fill(lakehouse, spark, [document(n, "raw" if n % 7 == 0 else "convert") for n in range(40)])
    job = Job(lakehouse, "synthesize", build(SynthesizeConfig, settings, "synthesize"), lambda: spark)
    estimate(job.config, job, 20, None, 2.0)
    printed = capsys.readouterr().out
    assert "documents          34 in 12 chains" in printed and "\nprice" in printed
    with pytest.raises(ConfigError, match="documents"):
        estimate(job.config, job, 0, None, None)
    assert lakehouse.read("syntheses").count() == 0

    counts = run_verb("synthesize", settings)
    assert counts["estimate/documents_error"] == 0
    assert abs(counts["estimate/prompt_tokens_error"]) < 0.2 and abs(counts["estimate/completion_tokens_error"]) < 0.2
    assert counts["progress/documents"] == 34 and counts["progress/seconds_left"] == 0
    assert 0 < counts["engine/occupancy"] <= 1 and 0 < counts["engine/prefix_hit_rate"] < 1
    assert counts["engine/lost_tokens"] == 0
    rows = [row.asDict(recursive=True) for row in lakehouse.read("syntheses").collect()]
    assert counts["progress/pairs"] == sum(len(row["pairs"]) for row in rows)
    converted = {f"d{n:03}" for n in range(40) if n % 7}
    assert {row["doc_id"] for row in rows} == converted and len(rows) == len(converted)
    assert counts["syntheses"] == len(converted)
    assert lakehouse.read("rejects").count() == 0
    later = [row for row in rows if row["round"] > 0]
    assert all(row["carried"] for row in later if row["status"] == "ok")
    assert sum(row["n_cached_tokens"] for row in later) > 0
    assert sum(len(row["pairs"]) for row in rows) > len(rows)
    assert {row["engine"]["name"] for row in rows} == {"vllm"}

    # Only documents that have come since are read by the next run, and their chains are their own.
    assert run_verb("synthesize", settings).get("syntheses", 0) == 0
    fill(lakehouse, spark, [document(n) for n in range(40, 44)], version=1)
    assert run_verb("synthesize", settings)["syntheses"] == 4
    assert lakehouse.read("syntheses").count() == len(converted) + 4

    shown = preview_rows(job.config, job, 3)
    again = preview_rows(job.config, job, 3)
    assert len(shown) == 3
    assert [(row["doc_id"], row["completion"]) for row in again] == [
        (row["doc_id"], row["completion"]) for row in shown
    ]
    preview(job.config, job, 1)
    printed = capsys.readouterr().out
    assert "round 1 of 1" in printed and "Who is it?" in printed
    assert lakehouse.read("syntheses").count() == len(converted) + 4


def test_samples_are_rows_of_their_own(spark, lakehouse, run_verb, engine_settings):
    fill(lakehouse, spark, [document(n) for n in range(6)])
    engine = {**engine_settings, "temperature": 0.9}
    counts = run_verb("synthesize", {"engine": engine, "rounds": 3, "samples": 2})
    rows = lakehouse.read("syntheses").collect()
    assert counts["syntheses"] == len(rows) == 12
    found = {(row["doc_id"], row["sample"]): row for row in rows}
    assert set(found) == {(f"d{n:03}", sample) for n in range(6) for sample in range(2)}
    pairs_of_rows = [(found[f"d{n:03}", 0], found[f"d{n:03}", 1]) for n in range(6)]
    assert all(first["chain_id"] != second["chain_id"] for first, second in pairs_of_rows)
    assert all(first["round"] == second["round"] for first, second in pairs_of_rows)
    assert any(first["completion"] != second["completion"] for first, second in pairs_of_rows)
    run_verb("augment", {})
    chains = {row["chain_id"] for row in lakehouse.read("augmented_texts").collect() if row["mode"] != "raw"}
    assert chains == {row["chain_id"] for row in rows if row["pairs"]}


def test_nothing_to_convert_starts_no_engine(spark, lakehouse, run_verb):
    """The folder has a tokenizer and no model: an engine that was started would fail."""
    train_tokenizer([text_about("job", 0)], 300).save(lakehouse.path("tokenizer-only"))
    fill(lakehouse, spark, [document(n, "raw") for n in range(3)])
    assert run_verb("synthesize", {"engine": {"model": "tokenizer-only"}}).get("syntheses", 0) == 0


def test_what_a_worker_finds_wrong_is_one_message(spark, lakehouse, run_verb, monkeypatch, tmp_path, capsys):
    train_tokenizer([text_about("job", 0)], 300).save(lakehouse.path("tokenizer-only"))
    fill(lakehouse, spark, [document(0)])
    with pytest.raises(PySparkException) as failed:
        run_verb("synthesize", {"engine": {"model": "tokenizer-only"}})

    def fail(*_):
        raise failed.value

    monkeypatch.setattr(Runner, "run", fail)
    (tmp_path / "pipeline.yaml").write_text(
        f"lakehouse: {{root: {tmp_path}}}\nsteps: {{synthesize: {{engine: {{model: m}}}}}}"
    )
    assert main(["synthesize", "--config", str(tmp_path / "pipeline.yaml")]) == 1
    said = capsys.readouterr().err
    folder = lakehouse.path("tokenizer-only")
    assert said.startswith(f"ipt: there is no model in {folder}: it has no config.json. Give `engine.model`")
    assert said.endswith("that every worker can read.\n") and said.count("\n") == 1


def test_a_missing_model_is_told_before_anything_runs(run_verb):
    with pytest.raises(ConfigError, match="no tokenizer at"):
        run_verb("synthesize", {"engine": {"model": "there is none"}})


def test_the_engine_without_a_model(spark, lakehouse, run_verb):
    text = (
        "The lamp of tower number {} burned for the whole of the night. Therefore, the ships came safely to the port "
        "of the island of Norwick. The fog was thick because of the warm wind from the sea."
    )
    fill(lakehouse, spark, [document(n, text=text.format(n)) for n in range(12)])
    counts = run_verb("synthesize", {"engine": {"name": "rules"}, "rounds": 3})
    rows = [row.asDict(recursive=True) for row in lakehouse.read("syntheses").collect()]
    assert counts["syntheses"] == len(rows) == 12
    assert {row["engine"]["name"] for row in rows} == {"rules"}
    # One about the cause of the fog, one or two about what follows from the lamp.
    assert {len(row["pairs"]) for row in rows} <= {2, 3} and {row["chain_length"] for row in rows} <= {1, 2, 3}
    run_verb("augment", {})
    assert lakehouse.read("augmented_texts").filter("n_pairs > 0").count() > 0


SURVIVES = {
    "white space": " \t\n\u3000 ",
    "one line of 1 MB": "This is about Ann. " * 55_000,
    "emoji": "🙂🔦👩‍🚀" * 20,
    "right to left": "كان هذا المنارة القديمة أمام الميناء \u202e עברית " * 3,
    "CJK": "这座灯塔建于一八六一年。灯台は港の前にある。" * 3,
    "control characters": "NUL \x00 BEL \x07 ESC \x1b[31m DEL \x7f \ufeff end",
    "markers": "<CON> a </CON> <QUE> b <ANS> c </END> <s> d </s> <unk> <|endoftext|> [INST] {question}",
    "a set of pairs": "<QUE> Who is it? <ANS> Ann </END>\n\n<QUE> Where did Ann go? <ANS> Rome </END></s><s> <CON> x",
}


def test_inputs_that_must_survive(spark, lakehouse, run_verb, engine_settings):
    # Each one has an ordinary document after it in its chain, which must come to no harm.
    texts = [text for odd in SURVIVES.values() for text in (odd, None)]
    fill(lakehouse, spark, [(*document(n, text=text)[:2], f"s{n // 2}", *document(n, text=text)[3:])
                            for n, text in enumerate(texts)])  # fmt: skip
    counts = run_verb("synthesize", {"engine": engine_settings, "rounds": 2})
    assert (counts["syntheses"], counts["rejects"]) == (len(texts) - 1, 1)
    (reject,) = lakehouse.read("rejects").collect()
    assert (reject["record_id"], reject["reason"]) == ("d000:0", "empty_text")
    rows = {row["doc_id"]: row for row in lakehouse.read("syntheses").collect()}
    for number, (name, odd) in enumerate(SURVIVES.items()):
        ordinary = rows[f"d{2 * number + 1:03}"]
        assert ordinary["status"] == "ok", name
        if name != "white space":
            row = rows[f"d{2 * number:03}"]
            assert row["context"] == odd, name
            assert row["chain_id"] == ordinary["chain_id"], name
    assert rows["d002"]["n_prompt_tokens"] + 64 == 512  # cut to what fits
    assert not any("‹" in row["context"] for row in rows.values())

    # What is made of them is trained on: every text is whole in what the templates make of it.
    run_verb("augment", {})
    augmented = {row["chain_id"]: row for row in lakehouse.read("augmented_texts").collect() if row["mode"] != "raw"}
    assert all(augmented[row["chain_id"]] for row in rows.values() if row["pairs"])
