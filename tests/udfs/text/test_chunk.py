"""Chunks: nothing lost, nothing over the budget, cut where a reader would cut."""

import functools
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from udfs.text.chunk import MIN_TOKENS, chunk, sentence_spans
from udfs.text.normalise import normalise
from udfs.tokens import train_tokenizer


@functools.cache
def _tokenizer():
    return train_tokenizer(["The quick brown fox jumps over the lazy dog. " * 3, "Paragraphs and sentences.\n\n"], 400)


def _count(text):
    return len(_tokenizer().encode(text))


def _chunks(text, limit):
    return list(chunk(text, limit, _count))


def _check(text, limit):
    found = _chunks(text, limit)
    at = 0
    for piece, tokens in found:
        assert piece and piece == piece.strip() and tokens == _count(piece) <= limit
        start = text.index(piece, at)
        assert not text[at:start].strip()  # only white space between two chunks
        at = start + len(piece)
    assert not text[at:].strip()
    return [piece for piece, _ in found]


_WORDS = st.text("abcdefgh.!?,é。世界👩\u0301", min_size=1, max_size=40)
_TEXTS = st.lists(st.tuples(_WORDS, st.sampled_from([" ", " ", " ", "\n", "\n\n", ". "])), max_size=120).map(
    lambda parts: normalise("".join(word + gap for word, gap in parts))
)


@given(_TEXTS, st.integers(MIN_TOKENS, 80))
@example("", 16)
@example("世" * 500, 16)
@example("👩" * 100, 16)
@example("a" * 1000 + " " + "b c " * 300, 16)
@settings(deadline=None)
def test_chunks_hold_the_whole_text_within_the_budget(text, limit):
    _check(text, limit)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(MIN_TOKENS, 40))
@settings(deadline=None)
def test_any_unicode_survives(text, limit):
    _check(normalise(text), limit)


def test_text_that_fits_is_one_chunk():
    text = "One sentence. Another one.\n\nA second paragraph."
    assert _chunks(text, 100) == [(text, _count(text))]


def test_paragraphs_stay_whole_where_they_fit():
    paragraphs = [f"Paragraph {number} has a few words in it. And two sentences." for number in range(12)]
    limit = 2 * _count(paragraphs[0]) + 12
    assert _check("\n\n".join(paragraphs), limit) == [
        f"{first}\n\n{second}" for first, second in zip(paragraphs[::2], paragraphs[1::2], strict=True)
    ]


def test_long_paragraph_is_cut_after_sentences_and_not_after_abbreviations():
    text = (
        "It was late when Dr. Smith arrived at No. 5 with J. Brown. Nobody was there, i.e. the house was empty! " * 10
    )
    for piece in _check(text.strip(), 60):
        assert piece.endswith(("Brown.", "empty!"))


def test_long_sentence_is_cut_between_words():
    text = " ".join(f"word{number}" for number in range(300))
    words = [word for piece in _check(text, 50) for word in piece.split()]
    assert words == text.split()


def test_small_heading_stays_with_the_long_paragraph_behind_it():
    text = "Abstract\n\n" + "This sentence belongs to a very long paragraph. " * 40
    assert len(_check(text.strip(), 100)[0]) > 100


def test_last_chunk_is_no_scrap():
    text = "Some words make up a sentence of it. " * 11
    limit = _count(text.strip()) - 5
    (_, first), (_, last) = _chunks(text.strip(), limit)
    assert first > limit // 3 and last > limit // 3


def test_chunks_are_well_filled_and_few_encodings_are_needed():
    text = "\n\n".join("Some words make up a sentence of the text, and so on. " * (2 + n % 5) for n in range(200))
    calls = []

    def counted(piece):
        calls.append(len(piece))
        return _count(piece)

    found = list(chunk(normalise(text), 200, counted))
    assert min(tokens for _, tokens in found[:-1]) >= 80
    assert sum(calls) < 5 * len(text)


def test_budget_too_small_for_a_character_is_refused():
    with pytest.raises(AssertionError, match="limit 15"):
        _chunks("text", 15)


def test_the_sentences_of_a_text_that_is_nearly_nothing_but_lines():
    text = "One.\n" + "\n" * 300_000 + "Two."
    started = time.process_time()
    assert [text[start:end] for start, end in sentence_spans(text)] == ["One.", "Two."]
    assert time.process_time() - started < 5, "it takes a time that grows with the text, not with its square"
