"""Lines for a CSV reader that may be put back, so that a quote which is never closed costs its own row only."""

import contextlib
import csv
from collections import deque
from collections.abc import Iterator
from typing import IO


class CsvLines(Iterator[str]):
    """The lines of a CSV text, with those of the row that is being read.

    Attributes:
        number: of the last line given.
        row: lines given since the caller last cleared it.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._again: deque[str] = deque()
        self._ended = False
        self.number = 0
        self.row: list[str] = []

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._stream, None)
        if line is None:
            self._ended = True
            raise StopIteration
        self.number += 1
        self.row.append(line)
        return line

    @property
    def begun(self) -> int:
        """Number of the row's first line."""
        return self.number - len(self.row) + 1

    def put_back(self, delimiter: str, columns: int) -> None:
        """Have the lines after the row's first one read again, if they are rows rather than the lines of one long text.

        They are rows where at least half of them have so many columns. With one column any line looks like a row, so
        none is put back.
        """
        rest, fits = self.row[1:], []
        with contextlib.suppress(csv.Error):  # it is met again where the line is read again
            fits += [len(row) == columns for row in csv.reader(rest, delimiter=delimiter) if row]
        if not self._ended:
            fits = fits[:-1]  # the reader stopped in the middle of the last one
        if columns > 1 and 2 * sum(fits) >= len(fits):
            self._again.extendleft(reversed(rest))
            self.number -= len(rest)
            del self.row[1:]
        self._ended = False
