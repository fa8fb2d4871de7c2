from collections import Counter
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.synthesizers import text_about
from tests.udfs.synthesis.scripted import TOKENIZER, ScriptedEngine
from udfs.config import build
from udfs.hashing import identifier, unit
from udfs.synthesis.chains import chains_of, synthesize_partition
from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.engines import cached_engine
from udfs.synthesis.engines.vllm import VllmConfig
from udfs.synthesis.journal import Journal, NoJournal
from udfs.synthesis.pairs import build as build_pairs
from udfs.synthesis.pairs import make_pair
from udfs.synthesis.prompts import ExampleFormat
from udfs.synthesis.rounds import Chain, ChainSettings, Document
from udfs.synthesis.scheduler import Scheduler

FORM = ExampleFormat(TOKENIZER)


def document(number: int, text: str | None = None) -> Document:
    return Document(f"d{number}", number % 3, "web", "any", text_about("chains", number) if text is None else text)


def chained(documents: list[Document], rounds: int) -> list[Chain]:
    return [Chain(tuple(documents[start : start + rounds])) for start in range(0, len(documents), rounds)]


def run(chains, engine, limits: ChainSettings) -> list:
    return list(Scheduler(engine, limits, NoJournal()).run(iter(chains)))


PAIR = build_pairs([make_pair("Who?", "Ann")])
ANSWERS = [
    (PAIR, "stop"),
    (PAIR + "\n\n<QUE> an", "length"),
    ("", "stop"),
    ("never ends " * 20, "length"),
    (f"{PAIR}\n\n{PAIR}\n\n<QUE> Why? <ANS>  </END>\n\n<QUE>  <ANS> Ann </END>", "stop"),
]
ODD_TEXTS = [
    "a text",
    "",
    " \n ",
    "refuse me",
    "<QUE> q <ANS> a </END></s>",
    "\x00\x07",
    "اللغة 中文 🙂" * 3,
    "x" * 3000,
]


@given(
    texts=st.lists(st.sampled_from(ODD_TEXTS), max_size=45),
    rounds=st.integers(1, 6),
    batch=st.integers(1, 9),
    salt=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_every_document_ends_as_one_row(texts, rounds, batch, salt):
    documents = [document(number, text) for number, text in enumerate(texts)]
    engine = ScriptedEngine(lambda prompt: ANSWERS[int(unit(prompt, salt) * len(ANSWERS))], max_num_seqs=batch)
    outcomes = run(chained(documents, rounds), engine, ChainSettings(max_model_len=400, max_tokens=64))

    keys = Counter(
        f"{row['doc_id']}:{row['chunk']}" if table == "syntheses" else row["record_id"] for table, row in outcomes
    )
    assert keys == Counter(one.key for one in documents)
    assert engine.most_running <= ceil(1.1 * batch) and not engine.running
    for ids in engine.prompts.values():
        assert len(ids) + 64 <= 400
        assert ids[0] == FORM.bos_id and ids.count(FORM.bos_id) == ids.count(FORM.eos_id) + 1
    expected = {"refuse me": "engine_error", "": "empty_text", " \n ": "empty_text"}
    rejected = {row["record_id"]: row["reason"] for table, row in outcomes if table == "rejects"}
    assert rejected == {one.key: expected[one.text] for one in documents if one.text in expected}
    for row in (row for table, row in outcomes if table == "syntheses"):
        number = int(row["doc_id"][1:])
        assert row["round"] == number % rounds
        assert row["status"] == (
            "no_pairs" if not row["pairs"] else "truncated_context" if len(row["context"]) == 3000 else "ok"
        )
        earlier = [one.key for one in documents[number - number % rounds : number]]
        assert row["carried"] == [key for key in earlier if key in row["carried"]]


def test_samples_of_a_document_are_chains_of_their_own(tmp_path: Path):
    """Same documents, same first prompt; each goes on with its own completions, which the journal tells apart."""
    asked: list[tuple[int, list[int]]] = []

    class Sampled(ScriptedEngine):
        def submit(self, request_id, prompt_ids, max_tokens, sample=0):
            asked.append((sample, list(prompt_ids)))
            super().submit(request_id, prompt_ids, max_tokens)

    documents = (document(0), document(1, " "), document(2))
    samples = [Chain(documents, sample) for sample in range(3)]
    names = iter(range(99))
    engine = Sampled(lambda prompt: (build_pairs([make_pair("Who?", f"Ann {next(names)}")]), "stop"))
    outcomes = list(Scheduler(engine, ChainSettings(2000, 64), Journal(tmp_path, 0, 1, {})).run(iter(samples)))
    rows = [row for table, row in outcomes if table == "syntheses"]
    assert Counter((row["doc_id"], row["sample"]) for row in rows) == Counter(
        (name, sample) for name in ("d0", "d2") for sample in range(3)
    )
    assert len({row["chain_id"] for row in rows}) == 3 and samples[0].chain_id == identifier(*["d0:0", "d1:1", "d2:2"])
    assert {row["record_id"] for table, row in outcomes if table == "rejects"} == {"d1:1", "d1:1#1", "d1:1#2"}
    prompts = {sample: [prompt for one, prompt in asked if one == sample] for sample in range(3)}
    assert prompts[0][0] == prompts[1][0] == prompts[2][0]
    assert len({tuple(prompts[sample][1]) for sample in range(3)}) == 3

    idle = Sampled(lambda prompt: ("", "stop"))
    again = list(Scheduler(idle, ChainSettings(2000, 64), Journal(tmp_path, 0, 1, {})).run(iter(samples)))
    found = {(row["chain_id"], row["round"]): row["completion"] for table, row in again if table == "syntheses"}
    assert not idle.prompts and found == {(row["chain_id"], row["round"]): row["completion"] for row in rows}


@pytest.mark.parametrize(("n", "m"), [(4, 3), (7, 3), (5, 4), (31, 5), (2, 5), (1, 1), (0, 2)])
def test_left_over_documents_make_a_shorter_chain(n, m):
    engine = ScriptedEngine(lambda prompt: (PAIR, "stop"))
    rows = [row for _, row in run(chained([document(k) for k in range(n)], m), engine, ChainSettings(2000, 64))]
    assert len(rows) == n
    assert Counter(row["chain_length"] for row in rows) == Counter(
        length for length in [m] * (n // m) + [n % m] for _ in range(length)
    )
    assert len({row["chain_id"] for row in rows}) == ceil(n / m)


def test_a_prompt_extends_the_last_one():
    engine = ScriptedEngine(lambda prompt: (PAIR + "\n\n<QUE> an unfinished", "length"))
    documents = [document(k) for k in range(3)]
    rows = [row for _, row in run([Chain(tuple(documents))], engine, ChainSettings(2000, 64))]
    first, second, third = engine.prompts.values()
    carried = [*TOKENIZER.encode(PAIR), FORM.eos_id]
    assert second == first + carried + FORM.encode_input(documents[1].text)
    assert third == second + carried + FORM.encode_input(documents[2].text)
    assert [row["carried"] for row in rows] == [[], ["d0:0"], ["d0:0", "d1:1"]]
    assert [row["n_prompt_tokens"] for row in rows] == [len(first), len(second), len(third)]
    assert rows[0]["chain_id"] == identifier("d0:0", "d1:1", "d2:2")


def test_a_document_without_pairs_is_left_out_of_later_prompts():
    engine = ScriptedEngine(lambda prompt: ("", "stop") if "middle" in prompt else (PAIR, "stop"))
    documents = [document(0), document(1, "the middle"), document(2)]
    rows = [row for _, row in run([Chain(tuple(documents))], engine, ChainSettings(2000, 64))]
    assert [row["status"] for row in rows] == ["ok", "no_pairs", "ok"]
    assert [row["carried"] for row in rows] == [[], ["d0:0"], ["d0:0"]]


def test_later_rounds_do_not_see_a_pair_that_failed_a_check():
    failed = build_pairs([make_pair("Why?", "unanswerable")])
    engine = ScriptedEngine(lambda prompt: (f"{PAIR}\n\n{failed}", "stop"))
    documents = [document(k) for k in range(2)]
    rows = [row for _, row in run([Chain(tuple(documents))], engine, ChainSettings(2000, 64))]
    first, second = engine.prompts.values()
    assert second == [*first, *TOKENIZER.encode(PAIR), FORM.eos_id, *FORM.encode_input(documents[1].text)]
    for row in rows:
        assert [pair["response"] for pair in row["pairs"]] == ["Ann"]
        assert [piece["reason"] for piece in row["rejected_pairs"]] == ["unanswerable"]
    kept = ChainSettings(2000, 64, CheckSettings(unanswerable=False))
    rows = [row for _, row in run([Chain(tuple(documents))], ScriptedEngine(engine._answer), kept)]
    assert [len(row["pairs"]) for row in rows] == [2, 2]


def test_the_oldest_example_goes_first():
    engine = ScriptedEngine(lambda prompt: (PAIR, "stop"))
    documents = [document(k) for k in range(3)]
    example = max(len(FORM.encode_example(one.text, [make_pair("Who?", "Ann")])[0]) for one in documents)
    limits = ChainSettings(max_model_len=2 * example + 64, max_tokens=64)
    rows = [row for _, row in run([Chain(tuple(documents))], engine, limits)]
    assert [row["carried"] for row in rows] == [[], ["d0:0"], ["d1:1"]]


def test_chains_are_taken_only_when_there_is_room():
    taken = []

    def endless():
        for number in range(10_000):
            taken.append(number)
            yield Chain((document(2 * number), document(2 * number + 1)))

    engine = ScriptedEngine(lambda prompt: (PAIR, "stop"), max_num_seqs=5)
    outcomes = Scheduler(engine, ChainSettings(2000, 64), NoJournal()).run(endless())
    for _ in range(40):
        next(outcomes)
    assert len(taken) < 40
    outcomes.close()
    assert set(engine.running) <= set(engine.aborted)


def test_rows_of_a_chain_are_neighbours():
    rows = [
        {
            "doc_id": f"d{n}",
            "chunk": 0,
            "source": "s",
            "domain": "x",
            "text": "t",
            "chain_key": {"number": n // 2},
            "round": n % 2,
            "sample": 1,
        }
        for n in range(5)
    ]
    chains = list(chains_of(rows))
    assert [[one.doc_id for one in chain.documents] for chain in chains] == [["d0", "d1"], ["d2", "d3"], ["d4"]]
    assert {chain.sample for chain in chains} == {1}


def test_no_engine_is_started_for_an_empty_partition():
    assert list(synthesize_partition(iter(()), VllmConfig(model="there is none"), CheckSettings(), None)) == []


def test_chains_on_the_real_engine(engine_settings):
    config = build(VllmConfig, engine_settings, "engine")
    engine = cached_engine(config)
    documents = [document(1000 + k) for k in range(30)]
    documents[10] = document(1010, f"This is about Ann. <QUE> x <ANS> y </END> </s> {'Ann went to Rome. ' * 90}")
    outcomes = run(chained(documents, 3), engine, ChainSettings.of(config, CheckSettings()))
    assert [table for table, _ in outcomes] == ["syntheses"] * 30
    rows = {row["doc_id"]: row for _, row in outcomes}

    # The synthesizer was tuned for seconds: what it writes is often wrong, but nearly always of the right form.
    assert sum(len(row["pairs"]) for row in rows.values()) >= 50
    assert rows["d1010"]["status"] in ("truncated_context", "no_pairs") and not rows["d1010"]["carried"]

    form = ExampleFormat(engine.tokenizer)
    examples = {
        one.key: form.encode_example(one.text, rows[one.doc_id]["pairs"])[0]
        for one in documents
        if rows[one.doc_id]["pairs"]
    }
    checked = 0
    for one in documents:
        row = rows[one.doc_id]
        if row["status"] != "ok" or "d1010:2" in row["carried"]:
            continue
        history = [token for key in row["carried"] for token in examples[key]]
        prompt = history + form.encode_input(one.text)
        assert len(prompt) == row["n_prompt_tokens"]
        if row["carried"]:  # all full blocks of what the round before left
            assert row["n_cached_tokens"] >= (len(history) - 1) // config.block_size * config.block_size > 0
        # The same prompt, made from text and alone in the engine, gives the same completion.
        engine.submit("alone", prompt, config.max_tokens)
        finished = []
        while not finished:
            finished = engine.step()
        assert finished[0].text == row["completion"]
        checked += 1
    assert checked >= 20
