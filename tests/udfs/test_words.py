"""Encoding word by word gives the ids of the whole text."""

from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs import words
from udfs.tokens import Tokenizer, load_tokenizer, train_tokenizer
from udfs.words import WordEncoder, windows

TEXT = st.text(max_size=60) | st.text(alphabet="ab  \n\n\t▁<s>/19.é東", max_size=80)


@pytest.fixture(scope="module")
def mistral() -> Tokenizer:
    mistral_common = pytest.importorskip("mistral_common")
    return load_tokenizer(Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1")


@settings(max_examples=300)
@given(texts=st.lists(TEXT, max_size=4))
def test_words_have_the_ids_of_the_text(mistral: Tokenizer, texts: list[str]) -> None:
    assert mistral._words is not None, "this tokenizer is the one that words are for"
    assert [ids.tolist() for ids in mistral.encode_arrays(texts)] == [mistral.encode(text) for text in texts]


@settings(max_examples=100)
@given(text=TEXT, size=st.integers(2, 20))
def test_a_text_in_parts_has_the_same_ids(mistral: Tokenizer, text: str, size: int) -> None:
    assert "".join(windows(text, size)) == text
    with patch("udfs.words.WINDOW", size):
        assert next(mistral.encode_arrays([text])).tolist() == mistral.encode(text)


def test_memory_of_words_is_bounded(mistral: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_KEPT_WORDS", 50)
    encoder = WordEncoder.of(mistral._backend.to_str())
    assert encoder is not None
    for number in range(60):
        text = " ".join(f"w{number * 7 + place}" for place in range(20)) + " " + "long" * 20
        assert encoder.encode(text).tolist() == mistral.encode(text)
        assert len(encoder._known) <= 50
        assert max(map(len, encoder._known)) <= 32


def test_a_tokenizer_whose_tokens_cross_words_is_left_alone() -> None:
    trained = train_tokenizer(["Elm Bay lies by the sea.\n\nIt has 3,212 inhabitants."] * 3, 300)
    assert trained._words is None
    texts = ["", "Elm Bay  lies", "by\n\nthe sea "]
    assert [ids.tolist() for ids in trained.encode_arrays(texts)] == [trained.encode(text) for text in texts]


def test_a_tokenizer_without_words_takes_long_texts_in_parts() -> None:
    text = "Elm Bay  lies by the sea,\n\n and 東京 does not.\n" * 200 + "x" * 3_000
    trained = train_tokenizer([text], 300)
    assert max(map(len, windows(text, 1_000))) == 1 + 3_000
    with patch("udfs.tokens.WINDOW", 1_000):
        assert next(trained.encode_arrays([text])).tolist() == trained.encode(text)


def test_a_text_without_a_place_to_cut_is_cut_all_the_same(mistral: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "LONGEST", 500)
    text = "x1Y" * 1_000
    assert [len(part) for part in windows(text, 100)] == [500] * 6
    assert [len(part) for part in windows("a " * 40 + text + " " + text[:300], 100)] == [79, *[500] * 6, 1, 301]
    with patch("udfs.words.WINDOW", 100):
        assert mistral.decode(next(mistral.encode_arrays([text])).tolist()) == text
