"""Options that speak of the list itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.templates.options import _OF_PLACE, speak_of_place

_LETTERS = ["A", "b", "C", "(D)", "E)", "F", "(a)", ""]
_PAIRS = st.tuples(
    st.sampled_from(["", "both ", "Either ", "neither ", "only ", "options ", "x"]),
    st.sampled_from(_LETTERS),
    st.sampled_from([",", ", ", " and ", " or ", " nor ", " & ", " AND ", " Nor ", "and"]),
    st.sampled_from(_LETTERS),
    st.sampled_from(["", " only", ".", ", and E", " are both correct"]),
).map("".join)
_PHRASES = st.tuples(
    st.sampled_from(["", "all ", "none of ", "Both ", "以上", "上述"]),
    st.sampled_from(["", "the ", "of the ", "é", "都"]),
    st.sampled_from(["", "above", "Below", "preceding", "FOLLOWING", "abov"]),
).map("".join)


@settings(max_examples=1_000)
@given(st.lists(_PAIRS | _PHRASES, min_size=1, max_size=2))
def test_what_is_not_looked_at_closely_speaks_of_nothing(options: list[str]) -> None:
    assert speak_of_place(*options) == bool(_OF_PLACE.search("\n".join(options)))
