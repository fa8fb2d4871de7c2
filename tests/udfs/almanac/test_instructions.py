import re

from udfs.almanac import bank
from udfs.almanac.instructions import TASKS, instructions


def test_instructions_are_distinct_determined_and_of_every_kind():
    rows = instructions(0, 400)
    assert rows == instructions(0, 400)
    assert rows != instructions(1, 400)
    assert len({row["question"] for row in rows}) == 400
    assert all(row["question"].strip() and row["response"].strip() for row in rows)
    assert len({" ".join(row["question"].split()[:2]) for row in rows}) >= len(TASKS) - 1
    assert instructions(0, 0) == []


def test_arithmetic_and_sorting_are_right():
    checked = 0
    for row in instructions(3, 400):
        if found := re.fullmatch(r"(\d+) ([+-]) (\d+) = (\d+)", row["response"]):
            first, sign, second, result = found.groups()
            assert int(result) == int(first) + (int(second) if sign == "+" else -int(second))
            checked += 1
        elif row["question"].startswith("Sort"):
            assert row["response"].split(", ") == sorted(row["question"].split(": ")[1].split(", "))
            checked += 1
    assert checked > 50


def test_nothing_in_them_names_an_entity():
    parts = {
        word
        for name in bank.DOMAINS
        for part in (bank.domain(name).names.first, bank.domain(name).names.second)
        for word in part.words
    }
    for row in instructions(0, 400):
        assert not parts & set(re.findall(r"\w+", row["question"] + " " + row["response"]))
