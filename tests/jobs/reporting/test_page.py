import base64
import re
from html.parser import HTMLParser

import pytest

from jobs.reporting.data import ReportData
from jobs.reporting.page import render
from tests.jobs.reporting.samples import HOSTILE, full_report

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects text, pictures and every address; fails on tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page() -> str:
    return render(full_report(), "A title & more", "today", {"To open it:": "run <this>"})


def test_text_of_the_data_is_never_markup(page: str) -> None:
    reader = _read(page)
    assert "script" not in reader.tags
    for begin in ("Context", "Completion", "Why", "Piece", "Chain", "Rendered", "How", "So"):
        assert f"{begin} {HOSTILE}" in reader.text
    assert "run <this>" in reader.text


def test_page_needs_nothing_else(page: str) -> None:
    reader = _read(page)
    assert reader.addresses
    for address in reader.addresses:
        kind, _, content = address.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content, validate=True).startswith(b"\x89PNG")
    assert not re.search(r"@import|url\(|https?://", page)


def test_page_shows_every_part(page: str) -> None:
    text = " ".join(_read(page).text)
    for expected in ("Loss over tokens seen", "Pairs per document", "Shards", "By source", "+70.0 pt", "78.1%"):
        assert expected in text
    assert "Nothing to show yet" not in text


def test_no_rejects_are_not_the_same_as_no_table_of_them() -> None:
    assert "No record was rejected." in _read(render(ReportData(rejects={}), "None", "today", {})).text


def test_what_is_absent_is_said() -> None:
    reader = _read(render(ReportData(), "Empty", "today", {}))
    assert "img" not in reader.tags
    assert reader.text.count("Nothing to show yet.") == 15
