import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.errors import DataError
from udfs.synthesis.contamination import FEWEST_WORDS, EvaluationSets, load_evaluation_sets

QUESTION = "Which engineer built the old lighthouse of Norwick in the year of the great storm?"


def hit(instruction: str, response: str = "Ada Holm", items: list[str] | None = None, n: int = 8):
    named = [(f"test:{number}", text) for number, text in enumerate(items or [QUESTION], start=1)]
    return EvaluationSets(named, n).hit({"instruction": instruction, "response": response})


def test_words_in_a_row():
    found = hit("She asked which engineer built, the old Lighthouse of Norwick in May.")
    assert found.words == "which engineer built the old lighthouse of norwick" and found.item == "test:1"
    assert hit("Which engineer built the new lighthouse of Norwick in a year of a storm?") is None


def test_the_response_counts_and_the_two_sides_together():
    assert hit("Say it.", QUESTION).item == "test:1"
    assert hit("Which engineer built the", "old lighthouse of Norwick") is not None


def test_a_short_item_is_looked_for_as_a_whole():
    item = "Where does the ferry lie at night?"
    found = hit("So where does the ferry lie at night then?", items=[item], n=13)
    assert found.words == "where does the ferry lie at night"
    assert hit("So where does the ferry lie at noon then?", items=[item], n=13) is None
    assert hit("Who was born first?", items=["Who was born first?"], n=13) is None


WORDS = st.lists(st.sampled_from("abcdef"), max_size=20)


@given(WORDS, WORDS, st.integers(FEWEST_WORDS, 10))
def test_it_is_a_hit_if_and_only_if_an_ngram_is_shared(item, said, n):
    length = min(n, len(item))
    expected = length >= FEWEST_WORDS and any(
        item[start : start + length] == said[at : at + length]
        for start in range(len(item) - length + 1)
        for at in range(len(said) - length + 1)
    )
    found = hit(" ".join(said), "", items=[" ".join(item)], n=n)
    assert (found is not None) == expected
    if found:
        assert found.words in " ".join(said) and found.words in " ".join(item)


def test_files(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join([json.dumps({"n": 1}), json.dumps({"options": [{"q": QUESTION}]})]), encoding="utf-8")
    found = load_evaluation_sets((str(path),), 8).hit({"instruction": QUESTION, "response": ""})
    assert found.item == "set.jsonl:2"
    for content in ("{broken", None):
        bad = tmp_path / "bad.jsonl"
        bad.unlink(missing_ok=True)
        if content:
            bad.write_text(content)
        with pytest.raises(DataError, match="JSON lines"):
            load_evaluation_sets((str(bad), str(content)), 8)


def test_a_file_that_changes_is_read_again(tmp_path):
    """A worker process outlives the job."""
    path, pair = tmp_path / "set.jsonl", {"instruction": QUESTION, "response": ""}
    path.write_text(json.dumps("something else"), encoding="utf-8")
    before = load_evaluation_sets((str(path),), 8)
    assert before.hit(pair) is None and load_evaluation_sets((str(path),), 8) is before
    path.write_text(json.dumps(QUESTION), encoding="utf-8")
    assert load_evaluation_sets((str(path),), 8).hit(pair) is not None


def test_blank_lines_and_a_byte_order_mark_are_nothing(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text(f"{json.dumps('a')}\n\n{json.dumps(QUESTION)}\n\n", encoding="utf-8-sig")
    found = load_evaluation_sets((str(path),), 8).hit({"instruction": QUESTION, "response": ""})
    assert found.item == "set.jsonl:3"
