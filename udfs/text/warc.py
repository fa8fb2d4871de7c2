"""Texts from WARC files, as web archives and Common Crawl publish them: pages (WARC) and their extracted text (WET).

A ``conversion`` record holds text; of a ``response`` that is HTML the main text is extracted, plain text is taken as it
is. Other records (requests, the file's own description) are no documents and are left out; a response that has no text
(an image, an error page) is a reject. Read by warcio, extracted by Resiliparse.
"""

import re
from collections.abc import Iterator
from typing import IO, Any

from udfs.text.files import DAMAGED, Damaged

Found = dict[str, Any] | tuple[str, str]

_HTML = ("text/html", "application/xhtml+xml")
_PLAIN = "text/plain"
_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_COMPRESSED = re.compile("gzip|deflate|br|zstd|compress")
_BLOCK = 1 << 16


class _AsItComes:
    """A stream whose ``read`` gives what is at hand: a fault costs what follows it in the file, nothing before it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.fault: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            # Handles of object stores have no `read1`.
            found: bytes = getattr(self._stream, "read1", self._stream.read)(size)
        except DAMAGED as error:
            self.fault = error  # warcio takes some of them for the end of the file
            raise
        return found


class _Brotli:
    """What warcio asks of a decompressor: its own for brotli sets an attribute that the library lets nobody set."""

    unused_data = b""

    def __init__(self) -> None:
        import brotli

        self._decompressor = brotli.Decompressor()

    def decompress(self, data: bytes) -> bytes:
        found: bytes = self._decompressor.process(data)
        return found

    def flush(self) -> bytes:
        return b""


def documents(stream: IO[bytes], text_field: str, max_bytes: int) -> Iterator[Found]:
    """The documents of a decompressed WARC file, in order: fields, or ``(reason, detail)`` of a reject.

    Fields are the text, ``url``, ``date``, ``content_type``, and ``languages`` where the archive names them.

    Raises:
        Damaged: the file is no WARC file from some record on.
    """
    from warcio.archiveiterator import ArchiveIterator
    from warcio.bufferedreaders import BufferedReader
    from warcio.exceptions import ArchiveLoadFailed

    BufferedReader.DECOMPRESSORS["br"] = _Brotli
    source = _AsItComes(stream)
    try:
        for record in ArchiveIterator(source):
            if record.rec_type not in ("conversion", "response"):
                continue
            size = int(record.rec_headers.get_header("Content-Length") or 0)
            if size > max_bytes:
                yield "too_long", f"the record is longer than {max_bytes} bytes"
            else:
                yield _document(record, text_field, max_bytes)
    except (ArchiveLoadFailed, ValueError) as error:  # ValueError: a length that is no number
        raise Damaged(str(error)) from error
    if source.fault is not None:
        raise source.fault


def _document(record: Any, text_field: str, max_bytes: int) -> Found:
    from warcio.bufferedreaders import BufferedReader

    charset = ""
    headers = record.rec_headers
    if record.rec_type == "conversion":
        content_type = headers.get_header("Content-Type") or _PLAIN
    else:
        if record.http_headers is None:
            return "invalid_record", "a response without HTTP headers"
        if record.http_headers.get_statuscode() != "200":
            return "missing_text", f"HTTP status {record.http_headers.get_statuscode()}"
        content_type = record.http_headers.get_header("Content-Type") or ""
        found = _CHARSET.search(content_type)
        charset = found.group(1) if found else ""
        encoding = (record.http_headers.get_header("Content-Encoding") or "").lower()
        if _COMPRESSED.search(encoding) and encoding not in BufferedReader.get_supported_decompressors():
            return "invalid_encoding", f"content encoding {encoding!r}"
    kind = content_type.split(";")[0].strip().lower()
    body: bytes = record.content_stream().read(max_bytes + 1)
    if len(body) > max_bytes:
        return "too_long", f"the page is longer than {max_bytes} bytes when it is decompressed"
    while record.raw_stream.limit > 0:  # what stands behind the end that the body itself has
        if not record.raw_stream.read(_BLOCK):
            raise Damaged("the file ends inside a record")
    try:
        if kind in _HTML:
            text = _of_html(body, charset)
        elif kind == _PLAIN:
            text = _encodable(body.decode(charset or "utf-8"))
        else:
            return "missing_text", f"content type {kind or 'unknown'}"
    except (UnicodeError, LookupError) as error:  # LookupError: a character set nobody knows
        return "invalid_encoding", str(error)
    fields = {
        text_field: text,
        "url": headers.get_header("WARC-Target-URI"),
        "date": headers.get_header("WARC-Date"),
        "content_type": content_type,
        "languages": headers.get_header("WARC-Identified-Content-Language"),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _of_html(body: bytes, charset: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    html = _encodable(bytes_to_str(body, charset or detect_encoding(body) or "utf-8"))
    text: str = extract_plain_text(html, preserve_formatting=True, main_content=True)
    return text


def _encodable(text: str) -> str:
    """The text itself; some character sets (UTF-7) can spell half a surrogate pair, which no table can hold."""
    text.encode()
    return text
