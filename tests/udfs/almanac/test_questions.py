import re
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.almanac import bank
from udfs.almanac.documents import document
from udfs.almanac.files import tables
from udfs.almanac.judge import Judge
from udfs.almanac.questions import FORMATS, held_out_questions, tuning_example
from udfs.almanac.world import AlmanacConfig, entities, entity
from udfs.synthesis.formats import PairFormat, decompose

CONFIG = AlmanacConfig()
KNOWN = st.builds(entity, st.just(0), st.sampled_from(bank.DOMAINS), st.just("tuning"), st.integers(0, 500))


def uniform(counts: Counter, kinds: int) -> bool:
    """Chi-square at p = 0.001 for 2 or 3 degrees of freedom."""
    expected = counts.total() / kinds
    statistic = sum((counts[kind] - expected) ** 2 / expected for kind in range(kinds))
    return statistic < {3: 13.8, 4: 16.3}[kinds]


@settings(max_examples=200, deadline=None)
@given(KNOWN, st.sampled_from(FORMATS))
def test_every_pair_is_right_by_the_judge_and_reads_back_in_its_format(known, pair_format):
    text = document(0, known)
    row = tuning_example(CONFIG, text, pair_format)
    assert row["context"] == text.text
    assert CONFIG.min_pairs <= len(row["QA_list"]) <= CONFIG.max_pairs
    judge = Judge(known.facts)
    asked = []
    for pair in row["QA_list"]:
        parts = decompose(pair["Q"], pair["A"])
        assert parts.format == pair_format
        assert judge.verdict(text.text, {"instruction": pair["Q"], "response": pair["A"]}) == "right"
        fact = judge.fact_asked(text.text, parts.question)
        asked.append(fact.relation)
        if parts.options is not None:
            assert len(set(parts.options)) == CONFIG.options
            assert set(parts.options) <= {other.value for other in known.facts}
            assert parts.final in parts.options
        # The word that leads to the answer in the text is the last one of the question.
        assert f"{parts.question.rstrip('?').split()[-1]} {fact.value}" in text.text
        if parts.reasoning is not None:
            assert text.statements[fact.relation] in parts.reasoning
    assert len(set(asked)) == len(asked)
    places = [text.text.index(text.statements[relation]) for relation in asked]
    assert places == sorted(places)  # asked in the order of the text


def test_the_right_option_stands_anywhere_in_tuning_sets():
    places = Counter()
    for known in entities(CONFIG, "tuning"):
        row = tuning_example(CONFIG, document(0, known), PairFormat.MULTIPLE_CHOICE)
        for pair in row["QA_list"]:
            places[decompose(pair["Q"], pair["A"]).options.index(pair["A"])] += 1
    assert uniform(places, CONFIG.options), places


def test_held_out_questions_have_four_options_and_the_right_one_anywhere():
    facts = [fact for known in entities(CONFIG, "raw") for fact in known.facts]
    everything = AlmanacConfig(test_questions=len(facts))
    rows = held_out_questions(everything, facts)
    assert len({row["question_id"] for row in rows}) == len(rows) == len(facts)
    truth = {(fact.entity, fact.relation): fact.value for fact in facts}
    for row in rows:
        assert set(row) == {"question_id", "domain", "subject", "relation", "prompt", "options", "gold", "answer"}
        assert row["options"][row["gold"]] == row["answer"] == truth[row["subject"], row["relation"]]
        assert len(set(row["options"])) == 4
        assert row["prompt"].startswith("Question: ")
        assert row["prompt"].endswith("\nAnswer:")
        assert row["subject"] in row["prompt"]
    assert uniform(Counter(row["gold"] for row in rows), 4)


def test_a_longer_test_contains_the_shorter_one():
    facts = [fact for known in entities(CONFIG, "raw") for fact in known.facts]
    short = held_out_questions(CONFIG, facts)
    assert len(short) == 400
    assert held_out_questions(AlmanacConfig(test_questions=900), facts)[:400] == short
    assert {row["domain"] for row in short} == set(bank.DOMAINS)


def test_no_wording_of_the_test_occurs_in_any_training_text():
    """Subjects are masked on both sides; then neither a wording nor its longer half (with no subject) may be found."""
    names = re.compile(
        "|".join(sorted({known.name for split in ("raw", "tuning") for known in entities(CONFIG, split)}))
    )
    lines = []
    for path, rows in tables(CONFIG):
        for row in rows if path.split("/")[0] in {"raw", "qa", "instructions"} else ():
            lines += [row[key] for key in ("text", "context", "question", "response") if key in row]
            lines += [text for pair in row.get("QA_list", ()) for text in pair.values()]
    training = names.sub("{name}", "\n".join(lines)).casefold()
    assert "{name}" in training
    for domain in bank.DOMAINS:
        for relation in bank.domain(domain).relations.values():
            assert relation.questions[0].casefold() in training  # the search does find what is there
            for wording in relation.held_out:
                assert wording.casefold() not in training
                half = max(wording.split("{name}"), key=len).casefold()
                assert half not in training, half
