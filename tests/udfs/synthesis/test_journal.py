import logging
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from udfs.synthesis.engines import Completion
from udfs.synthesis.journal import Journal, counts

ENGINE = {"name": "any", "seed": 0}


def completion(text: str, tokens: int = 3) -> Completion:
    return Completion("7", text, tuple(range(tokens)), "stop", tokens + 1, 2)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


@given(texts=st.lists(st.text(max_size=30), max_size=8), cut=st.integers(0, 400), damage=st.integers(0, 255))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_found_whatever_the_end_looks_like(tmp_path_factory, texts, cut, damage):
    folder = tmp_path_factory.mktemp("journal")
    journal = Journal(folder, 0, 1, ENGINE)
    keys = [journal.key(f"d{n}", [n]) for n in range(len(texts))]
    ends = []
    for n, (key, text) in enumerate(zip(keys, texts, strict=True)):
        journal.write([(key, completion(text))], {"documents": n + 1})
        ends.append(files(folder)[0].stat().st_size)
    if texts:  # as if the machine had gone in the middle of a write, and left a few odd bytes behind
        file = files(folder)[0]
        kept = file.read_bytes()[: max(0, ends[-1] - cut)]
        file.write_bytes(kept + bytes([damage]) * (cut % 3))
        whole = sum(end <= len(kept) for end in ends)
    again = Journal(folder, 0, 1, ENGINE)
    for n, (key, text) in enumerate(zip(keys, texts, strict=True)):
        found = again.take(key, "9")
        if n < whole:
            assert found == Completion("9", text, (0, 1, 2), "stop", 4, 2)
        assert found is None or found.text == text
        assert again.take(key, "9") is None, "once"


def test_a_damaged_line_costs_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    journal = Journal(tmp_path, 0, 1, ENGINE)
    for name in "abc":
        journal.write([(name, completion(name))], {"documents": 1})
    file = files(tmp_path)[0]
    file.write_bytes(file.read_bytes().replace(b'"b"', b'"x"', 1))
    with caplog.at_level(logging.WARNING):
        again = Journal(tmp_path, 0, 1, ENGINE)
    assert [again.take(name, "") is not None for name in "axbc"] == [True, False, False, True]
    assert "damaged" in caplog.text


def test_another_engine_document_or_prompt_asks_something_else(tmp_path: Path):
    journal = Journal(tmp_path, 0, 1, ENGINE)
    other = Journal(tmp_path, 0, 1, {**ENGINE, "seed": 1})
    keys = [journal.key("d", [1, 2]), journal.key("e", [1, 2]), journal.key("d", [12]), other.key("d", [1, 2])]
    assert len(set(keys)) == 4
    assert journal.key("d", (1, 2)) == keys[0]


def test_a_task_reads_its_partition_and_what_was_written_under_another_number_of_them(tmp_path: Path):
    for partition, partitions in ((0, 2), (1, 2), (0, 12)):
        journal = Journal(tmp_path, partition, partitions, ENGINE)
        journal.write([(f"{partition} of {partitions}", completion("x"))], {})
        journal.close()
    found = Journal(tmp_path, 0, 2, ENGINE)
    assert [found.take(key, "") is not None for key in ("0 of 2", "1 of 2", "0 of 12")] == [True, False, True]


def test_what_was_with_the_engine_of_a_killed_attempt_is_remembered(tmp_path: Path):
    for number in range(3):
        journal = Journal(tmp_path, 0, 1, ENGINE)
        assert journal.deaths("a") == (number, 0) and journal.deaths("b") == (number, number)
        journal.begin("a", False)
        journal.begin("done", False)
        journal.write([("done", completion("x"))], {})
        journal.begin("b", True)
    journal.close()  # the last attempt ended by itself: it was not killed
    again = Journal(tmp_path, 0, 1, ENGINE)
    assert again.deaths("a") == (2, 0) and again.deaths("b") == (2, 2) and again.deaths("done") == (0, 0)


def test_counts_are_summed_over_files_and_segments(tmp_path: Path):
    first, second = Journal(tmp_path, 0, 2, ENGINE), Journal(tmp_path, 1, 2, ENGINE)
    first.write([], {"documents": 1, "seconds": 0.5})
    first.write([("k", completion("x"))], {"documents": 4, "seconds": 2.5})
    first._close()  # as at the end of a segment
    first.write([], {"documents": 5, "seconds": 3.0})
    second.write([], {"documents": 10, "seconds": 1.0})
    assert len(files(tmp_path)) == 3
    assert counts(tmp_path) == {"documents": 15, "seconds": 4.0}
    with files(tmp_path)[0].open("ab") as file:
        file.write(b"0000")
    assert counts(tmp_path) == {"documents": 15, "seconds": 4.0}
    assert counts(tmp_path / "nothing here") == {}
