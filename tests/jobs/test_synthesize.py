from collections import Counter, defaultdict
from math import ceil

import pytest

from jobs.lakehouse.stage import Job
from jobs.synthesize import SynthesizeConfig, preview, preview_rows, with_chains
from tests.synthesizers import text_about
from udfs.config import build
from udfs.errors import ConfigError
from udfs.tokens import train_tokenizer

COLUMNS = (
    "doc_id string, chunk int, source string, domain string, language string, arm string, n_tokens int, "
    "content_hash string, license string, text string"
)


def document(number: int, arm: str = "convert", text: str | None = None) -> tuple:
    text = text_about("job", number) if text is None else text
    return (f"d{number:03}", number % 2, "ab"[number % 5 == 0], "any", None, arm, 1, f"h{number}", None, text)


def fill(lakehouse, spark, documents: list[tuple], version: int = 0) -> None:
    job = Job(lakehouse, "curate", SynthesizeConfig(engine={"model": "m"}), lambda: spark, run_id="test")
    frame = job.with_provenance(spark.createDataFrame(documents, COLUMNS))
    lakehouse.append(frame, "documents", "test", version)


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"partitions": 0}, {"round": 2}])
def test_bad_settings(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        build(SynthesizeConfig, {"engine": {"model": "m"}, **bad}, "synthesize")


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
    places = Counter((key["source"], key["_bucket"]) for key in chains)
    for place, count in places.items():
        documents_there = sum(len(chain) for key, chain in chains.items() if (key["source"], key["_bucket"]) == place)
        assert count == ceil(documents_there / rounds)
    assert len({row["chain_key"]["_bucket"] for part in parts for row in part}) == partitions
    assert members(documents[::-1])[0] == chains
    assert members(documents, seed=1)[0] != chains


def test_synthesize_end_to_end(spark, lakehouse, run_verb, engine_settings, capsys):
    settings = {"engine": engine_settings, "rounds": 3}
    fill(lakehouse, spark, [document(n, "raw" if n % 7 == 0 else "convert") for n in range(40)])
    counts = run_verb("synthesize", settings)
    rows = [row.asDict(recursive=True) for row in lakehouse.read("syntheses").collect()]
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

    job = Job(lakehouse, "synthesize", build(SynthesizeConfig, settings, "synthesize"), lambda: spark)
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


def test_nothing_to_convert_starts_no_engine(spark, lakehouse, run_verb):
    """The folder has a tokenizer and no model: an engine that was started would fail."""
    train_tokenizer([text_about("job", 0)], 300).save(lakehouse.path("tokenizer-only"))
    fill(lakehouse, spark, [document(n, "raw") for n in range(3)])
    assert run_verb("synthesize", {"engine": {"model": "tokenizer-only"}}).get("syntheses", 0) == 0


def test_a_missing_model_is_told_before_anything_runs(run_verb):
    with pytest.raises(ConfigError, match="no tokenizer at"):
        run_verb("synthesize", {"engine": {"model": "there is none"}})


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
