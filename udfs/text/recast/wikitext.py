"""WikiText: one plain text of many articles, whose headings stand alone on a line as ``= Title =``.

Source of the shape: Merity et al., Pointer Sentinel Mixture Models (2016). An article starts at a heading of level one
between two blank lines; deeper headings (``= = Section = =``) stay in its text. The text is left as it is published,
``<unk>`` and ``@-@`` included, with a blank line between its paragraphs.
"""

import re
from collections.abc import Iterator

from udfs.text.recast.files import decode, lines
from udfs.text.recast.records import Malformed, Recast, RecastOptions, text

_TITLE = re.compile(rb"= (?!=)(.+?)(?<!=) =")


def entries(path: str) -> Iterator[list[bytes]]:
    """The lines of each article that hold something, its title first."""
    article: list[bytes] = []
    previous, current = b"", None
    for line in _with_end(lines(path)):
        following = line.strip()
        if current is not None:
            if not previous and not following and _TITLE.fullmatch(current) and article:
                yield article
                article = []
            if current:
                article.append(current)
            previous = current
        current = following
    if article:
        yield article


def _with_end(numbered: Iterator[bytes]) -> Iterator[bytes]:
    """The lines and a blank one after them, so that the last line has a successor too."""
    yield from numbered
    yield b""


def recast(article: list[bytes], options: RecastOptions) -> Iterator[Recast]:
    """The article as a text. Lines before the first title make an article without one."""
    match = _TITLE.fullmatch(article[0])
    body = "\n\n".join(decode(line) for line in article)
    if match and len(article) == 1:
        raise Malformed("missing_text", f"there is nothing under the title {body!r}")
    if options.selects(body):
        yield text(body, decode(match[1]) if match else "")
