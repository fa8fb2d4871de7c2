"""Web archives, written with the library that reads them."""

import gzip
import io
from pathlib import Path

import brotli
import pytest

from udfs.text import readers
from udfs.text.readers import Record, detect_format, read_records

PAGE = """<html><head><title>Elm Bay</title><script>var x = 1;</script></head><body><nav><a href="/">Home</a></nav>
<main><h1>Elm Bay</h1><p>The harbour town of Elm Bay was founded in 1874 by fishermen,
and its café is 150 years old.</p>
<p>It has 3,212 inhabitants today, most of whom live by the sea and from it.</p></main></body></html>"""


def http(content_type: str, body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def record(kind: str, body: bytes, content_type: str, **headers: str) -> bytes:
    lines = {
        "WARC-Type": kind,
        "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-000000000000>",
        "WARC-Date": "2024-05-01T00:00:00Z",
        "WARC-Target-URI": "https://example.org/elm",
        "Content-Type": content_type,
        **{name.replace("_", "-"): value for name, value in headers.items()},
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + body + b"\r\n\r\n"


HTTP = "application/http; msgtype=response"
RECORDS = [
    record("warcinfo", b"software: x\r\n", "application/warc-fields"),
    record("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"),
    record("response", http("text/html; charset=utf-8", PAGE.encode()), HTTP),
    record("response", http("text/html; charset=iso-8859-1", PAGE.encode("latin-1")), HTTP),
    record("response", http("image/png", b"\x89PNG"), HTTP),
    record("response", http("text/html", b"gone", "404 Not Found"), HTTP),
    record("response", http("text/plain", "Plain é.".encode()), HTTP),
    record("conversion", "A WET text: 世界".encode(), "text/plain", WARC_Identified_Content_Language="eng,zho"),
    record("conversion", b"\xff\xfe", "text/plain"),
]


def read(path: Path) -> tuple[dict[str, dict], dict[str, str]]:
    found = list(read_records(str(path)))
    good = {item.record_id.rpartition("#")[2]: item.fields for item in found if isinstance(item, Record)}
    return good, {item["record_id"].rpartition("#")[2]: item["reason"] for item in found if isinstance(item, dict)}


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.wet.gz"])
def test_texts_of_pages_and_of_extracted_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    # One gzip member for each record, as archives have it.
    path.write_bytes(b"".join(map(gzip.compress, RECORDS)) if name.endswith(".gz") else b"".join(RECORDS))
    assert detect_format(str(path)) == "warc"
    good, bad = read(path)
    assert bad == {"3": "missing_text", "4": "missing_text", "7": "invalid_encoding"}
    assert set(good) == {"1", "2", "5", "6"}
    for number in ("1", "2"):
        text = good[number]["text"]
        assert "its café is 150 years old." in text and "3,212 inhabitants" in text
        assert "var x" not in text and "<p>" not in text
    assert good["5"]["text"] == "Plain é."
    assert good["6"] == {
        "text": "A WET text: 世界",
        "url": "https://example.org/elm",
        "date": "2024-05-01T00:00:00Z",
        "content_type": "text/plain",
        "languages": "eng,zho",
    }


def encoded_as(encoding: str, body: bytes) -> bytes:
    return record("response", http(f"text/html\r\nContent-Encoding: {encoding}", body), HTTP)


def test_pages_are_decompressed_and_one_that_cannot_be_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    page = PAGE.encode()
    known = [encoded_as("br", brotli.compress(page)), encoded_as("gzip", gzip.compress(page)), encoded_as("br", page)]
    path.write_bytes(b"".join([*known, encoded_as("zstd", b"x"), encoded_as("gzip, br", b"x"), RECORDS[2]]))
    good, bad = read(path)
    assert bad == {"4": "invalid_encoding", "5": "invalid_encoding"}
    assert set(good) == {"1", "2", "3", "6"}
    assert all("150 years old" in fields["text"] for fields in good.values())


@pytest.mark.parametrize("content_type", ["text/html", "text/plain"])
def test_half_of_a_surrogate_pair_costs_its_record(tmp_path: Path, content_type: str) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(record("response", http(f"{content_type}; charset=utf-7", b"+2AA- Elm"), HTTP) + RECORDS[6])
    good, bad = read(path)
    assert bad == {"1": "invalid_encoding"} and set(good) == {"2"}


def test_a_file_that_ends_early_costs_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "cut.warc.gz"
    whole = b"".join(map(gzip.compress, [RECORDS[7]] * 50))
    path.write_bytes(whole[:-40])
    good, bad = read(path)
    assert len(good) == 49 and {fields["text"] for fields in good.values()} == {"A WET text: 世界"}
    assert bad == {"50": "unreadable_file"}
    plain = tmp_path / "cut.warc"
    plain.write_bytes(RECORDS[7] + RECORDS[7][:-10])
    good, bad = read(plain)
    assert set(good) == {"1"} and bad == {"2": "unreadable_file"}


def test_a_record_of_any_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 100)
    path = tmp_path / "a.warc"
    path.write_bytes(record("conversion", b"x" * 101, "text/plain") + RECORDS[7])
    good, bad = read(path)
    assert bad == {"1": "too_long"} and set(good) == {"2"}


def test_a_compressed_page_of_any_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 10_000)
    path = tmp_path / "a.warc"
    path.write_bytes(encoded_as("gzip", gzip.compress(b"x " * 10_000)) + RECORDS[7])
    good, bad = read(path)
    assert bad == {"1": "too_long"} and set(good) == {"2"}


def test_bytes_behind_the_end_of_a_body_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    page = PAGE.encode()
    chunked = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n{len(page):x}\r\n"
    behind = [
        encoded_as("gzip", gzip.compress(page) + b"x" * 100_000),
        record("response", chunked.encode() + page + b"\r\n0\r\n\r\nmore", HTTP),
    ]
    path.write_bytes(b"".join([*behind, RECORDS[7]]))
    good, bad = read(path)
    assert bad == {} and set(good) == {"1", "2", "3"}
    assert all("150 years old" in good[number]["text"] for number in "12")


def test_what_is_no_archive_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.warc"
    path.write_bytes(io.BytesIO(b"no archive at all\r\n" * 50).getvalue())
    good, bad = read(path)
    assert good == {} and list(bad.values()) in ([], ["unreadable_file"])
