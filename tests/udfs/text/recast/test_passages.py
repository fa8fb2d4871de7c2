from hypothesis import given
from hypothesis import strategies as st

from udfs.text.recast.passages import count_words, passages

TEXT = st.lists(st.sampled_from(["word ", "end. ", "\n\n", "语", "。", "x", "?! ", "\n"]), max_size=80).map("".join)
SPAN = st.tuples(st.integers(0, 200), st.integers(1, 30)).map(lambda span: (span[0], span[0] + span[1]))


@given(TEXT, st.lists(SPAN, max_size=5), st.integers(1, 20))
def test_passages_cover_the_text_and_cut_no_kept_span(text, kept, window):
    found = passages(text, kept, window)
    assert "".join(text[start:end] for start, end in found) == text
    for _, end in found[:-1]:
        assert not any(first < end < last for first, last in kept)


@given(TEXT, st.integers(1, 20))
def test_without_kept_spans_a_passage_keeps_to_the_window_where_words_are_apart(text, window):
    spaced = text.replace("语", " 语 ").replace("。", "。 ")
    assert all(count_words(spaced[start:end]) <= window for start, end in passages(spaced, [], window))


def test_paragraphs_come_before_sentences_and_sentences_before_words():
    text = "One two three.\n\nFour five. Six seven eight nine ten eleven."
    cut = [text[start:end].strip() for start, end in passages(text, [], 3)]
    assert cut == ["One two three.", "Four five.", "Six seven eight", "nine ten eleven."]
    assert len(passages(text, [], 100)) == 1
    whole = [text[start:end].strip() for start, end in passages(text, [], 5)]
    assert whole == ["One two three.", "Four five.", "Six seven eight nine ten", "eleven."]


def test_a_kept_span_makes_a_passage_longer_than_the_window():
    text = "One two. Three four. Five six seven eight."
    span = (text.index("four"), text.index(" seven"))
    assert [text[start:end] for start, end in passages(text, [span], 2)] == [
        "One two. ",
        "Three ",
        "four. Five six ",
        "seven eight.",
    ]


def test_characters_of_chinese_count_as_words():
    assert count_words("病毒 spreads fast。") == 4
    text = "病毒传播。人人都知。"
    assert [text[start:end] for start, end in passages(text, [], 5)] == ["病毒传播。", "人人都知。"]
