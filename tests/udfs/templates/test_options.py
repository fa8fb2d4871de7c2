"""Options that speak of the list itself."""

from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.templates.options import _OF_PLACE, speak_of_place

_PIECES = [
    *"ABEF(), &\nax",
    *(" and ", " or ", " nor ", " AND ", "both ", "Either ", " only", "all of the ", "none of these "),
    *("above", "Below", "preceding", "following", "以上", "都", "上述", "é"),
]


@settings(max_examples=1_000)
@given(st.lists(st.lists(st.sampled_from(_PIECES), max_size=8).map("".join), min_size=1, max_size=3))
def test_what_is_not_looked_at_closely_speaks_of_nothing(options: list[str]) -> None:
    assert speak_of_place(*options) == bool(_OF_PLACE.search("\n".join(options)))
