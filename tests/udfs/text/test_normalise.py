"""The normal form of texts."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.text.normalise import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301", "café"),
        ("a\r\nb\rc\u2028d\x0ce", "a\nb\nc\nd\ne"),
        ("one\u2029two", "one\n\ntwo"),
        ("a\x00b\x1bc\u200bd\ufeffe\xadf", "abcdef"),
        ("a  b\t\tc\xa0\u3000d", "a b c d"),
        ("  lead  \n\t next \n", "lead\nnext"),
        ("one\n\n\n \n\ntwo\n\n", "one\n\ntwo"),
        (" \n\x00\t ", ""),
        ("👩\u200d🔬 क\u094d\u200dष", "👩\u200d🔬 क\u094d\u200dष"),  # joiners that shape what is shown
        ("a\x00\u0301", "á"),  # composed although a control character stood between
    ],
)
def test_known_forms(text, expected):
    assert normalise(text) == expected


_MESSY = st.text(
    st.sampled_from("ab\u0301e \t\n\r\x00\x0b\x0c\x85\xa0\u2028\u2029\u200b\u3000\ufeff가\u1100\u1161\u11a8.")
)


@given(st.one_of(_MESSY, st.text(st.characters(exclude_categories=["Cs"]))))
def test_normal_form_is_stable_and_clean(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert "\n\n\n" not in once and "  " not in once and once == once.strip(" \n")
    assert not any(unicodedata.category(character) == "Cc" for character in once if character != "\n")


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_visible_characters_are_kept(text):
    assert normalise(text) == unicodedata.normalize("NFC", text)


@given(st.text(st.sampled_from("a \u0301\u0323\u0344\u0f81\u094d\u034f\u3099か☃"), max_size=300))
def test_marks_in_a_row_are_few_and_none_is_lost(text):
    normal = normalise(f"x{text}x")
    assert normalise(normal) == normal
    decomposed = unicodedata.normalize("NFD", normal)
    runs = "".join("m" if unicodedata.combining(character) else " " for character in decomposed).split()
    assert all(len(run) <= 31 for run in runs)  # one more where a letter has taken a mark in
    before, after = (Counter(unicodedata.normalize("NFD", one)) for one in (text, normal))
    assert all(after[mark] == count for mark, count in before.items() if unicodedata.combining(mark))


def test_a_megabyte_of_marks_does_not_hang():
    # In order of their classes they would take n * n steps: some twenty minutes.
    assert len(normalise("a" + "\u0301\u0323" * 500_000)) > 1_000_000
