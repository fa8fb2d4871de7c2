"""Reading JSON values one after another from a text that need not fit into memory."""

import json
from typing import IO, Any

_BLOCK = 1 << 16


class JsonWindow:
    """The part of a JSON text that is in memory, read on as values need it.

    Args:
        stream: the text.
        limit: characters a value may have.

    Attributes:
        at: position in what is in memory; a caller may move it over characters that ``skip`` showed.
    """

    # Cut anywhere else, a value fails at the very end of what is there; a literal (-Infinity) may fail at its start.
    _LONGEST_LITERAL = 16

    def __init__(self, stream: IO[str], limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._ended = False
        self.at = 0

    def skip(self, more: str) -> str:
        """Passes white space and the characters ``more``; gives the next character, empty at the end."""
        while True:
            while self.at < len(self._buffer):
                if self._buffer[self.at] not in " \t\r\n" + more:
                    return self._buffer[self.at]
                self.at += 1
            if self._ended:
                return ""
            self._read_on()

    def value(self) -> tuple[Any, str]:
        """The value that begins here, and its source. Raises ValueError or RecursionError where there is none."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self.at)
                if end < len(self._buffer) or self._ended:  # else a number may go on
                    source = self._buffer[self.at : end]
                    self.at = end
                    return value, source
            except json.JSONDecodeError as error:
                far = error.pos < len(self._buffer) - self._LONGEST_LITERAL
                if self._ended or (far and not error.msg.startswith("Unterminated string")):
                    raise
            if len(self._buffer) - self.at > self._limit:
                raise ValueError(f"the value does not end within {self._limit} characters")
            self._read_on()

    def ahead(self, size: int) -> str:
        """At most ``size`` characters from here, as far as they are in memory."""
        return self._buffer[self.at : self.at + size]

    def skip_to_line(self, beginning: str) -> None:
        """Passes everything up to the next line that begins with ``beginning``, or to the end."""
        mark = "\n" + beginning
        while (found := self._buffer.find(mark, self.at)) < 0 and not self._ended:
            self.at = max(self.at, len(self._buffer) - len(mark) + 1)
            self._read_on()
        self.at = found + 1 if found >= 0 else len(self._buffer)

    def _read_on(self) -> None:
        rest = self._buffer[self.at :]
        # Twice as much each time, so that parsing a long value again and again stays linear.
        block = self._stream.read(max(_BLOCK, len(rest)))
        self._buffer, self.at, self._ended = rest + block, 0, not block
