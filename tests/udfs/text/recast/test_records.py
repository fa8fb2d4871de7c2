import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.config import build
from udfs.errors import ConfigError
from udfs.rejects import PAYLOAD_CHARACTERS, REASONS
from udfs.text.recast.records import Malformed, RecastOptions, example, instruction, reader, take, text


@given(st.text(st.characters(exclude_categories=("Cs",))), st.floats(0.01, 0.99))
def test_two_parts_that_meet_share_no_text_and_lose_none(body, cut):
    first, second = RecastOptions(part=(0.0, cut)), RecastOptions(part=(cut, 1.0))
    assert first.selects(body) != second.selects(body)


def test_a_part_holds_its_share():
    options = RecastOptions(part=(0.2, 0.5))
    assert 250 < sum(options.selects(f"text {number}") for number in range(1000)) < 350


@pytest.mark.parametrize("wrong", [{"part": [0.5, 0.5]}, {"part": [-0.1, 1.0]}, {"window": 3}, {"windw": 100}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="options"):
        build(RecastOptions, wrong, "options")


def test_an_entry_gives_all_of_its_records_or_a_reject():
    def entries(path):
        yield from (1, 2, 3)
        raise Malformed("unreadable_file", "cut short")

    def recast(number, options):
        yield text(f"text {number}")
        if number == 2:
            raise Malformed("invalid_record", "two is wrong")

    records = list(reader(entries, recast)("some/path"))
    assert [record["kind"] for record in records] == ["text", "reject", "text", "reject"]
    assert [record.get("reason") for record in records] == [None, "invalid_record", None, "unreadable_file"]
    assert [record["payload"] for record in records if record["kind"] == "reject"] == ["2", "some/path"]


def test_the_payload_of_a_reject_is_bounded():
    def recast(entry, options):
        raise Malformed("invalid_record", "too much")

    (record,) = reader(lambda path: iter([b"x" * 10 * PAYLOAD_CHARACTERS]), recast)("path")
    assert len(record["payload"]) == PAYLOAD_CHARACTERS


def test_blank_contexts_texts_and_pair_lists_are_refused():
    with pytest.raises(Malformed):
        example("  ", [("q", "a")])
    with pytest.raises(Malformed):
        example("context", [])
    with pytest.raises(Malformed):
        text(" \n")


def test_half_a_surrogate_pair_is_refused():
    for attempt in (
        lambda: text("\ud800"),
        lambda: text("x", "\ud800"),
        lambda: example("x", [("\ud800", "a")]),
        lambda: instruction("q", "\ud800"),
        lambda: take({"a": "\ud800"}, "a", str),
    ):
        with pytest.raises(Malformed) as caught:
            attempt()
        assert caught.value.reason == "invalid_encoding"


def test_take_checks_presence_type_and_blankness():
    assert take({"a": [1]}, "a", list) == [1]
    for record, key, kind in (({}, "a", str), (None, "a", str), ({"a": 1}, "a", str), ({"a": " "}, "a", str)):
        with pytest.raises(Malformed):
            take(record, key, kind)


def test_reasons_are_of_the_closed_list():
    with pytest.raises(AssertionError):
        Malformed("because", "")
    assert "invalid_record" in REASONS
