"""The normal form of texts."""

import unicodedata

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
