"""Conversations as training texts, with what every stretch of them is.

The template is that of Tülu, in which Instruction Modelling was published (arXiv 2405.14394; code of open-instruct): a
marker on a line of its own before each turn, the turn without surrounding blanks, an end token after each reply::

    <|user|>
    Where is Elm?
    <|assistant|>
    By the sea.{EOS}
    <|user|>

The markers are ordinary text, not tokens of their own. A prompt and its completion have no markers: they are joined by
a space unless one of them has a blank there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ROLES = ("system", "user", "assistant")
PROMPT, COMPLETION = "prompt", "completion"
_REPLY = ("assistant", COMPLETION)
_BLANKS = (" ", "\n", "\t")


@dataclass
class Part:
    """A stretch of a conversation up to an end token, or to its end.

    Attributes:
        spans: texts, each with its role: template, instruction or response.
        ends: whether an end token follows.
    """

    spans: list[tuple[str, str]]
    ends: bool = False

    @property
    def text(self) -> str:
        """The spans' texts, joined."""
        return "".join(text for text, _ in self.spans)


def parts(messages: Iterable[Mapping[str, str]]) -> list[Part]:
    """A conversation in parts, one for each reply, and one for what follows the last reply.

    Args:
        messages: each with ``role``, one of ``ROLES`` or ``PROMPT`` and ``COMPLETION``, and ``content``.
    """
    found = [Part([])]
    for message in messages:
        spans, role, content = found[-1].spans, message["role"], message["content"]
        kind = "response" if role in _REPLY else "instruction"
        if role in ROLES:
            spans += [(f"<|{role}|>\n", "template"), (content.strip(), kind)]
        elif role == COMPLETION and spans:
            joined = spans[-1][0].endswith(_BLANKS) or content.startswith(_BLANKS)
            spans += [("" if joined else " ", "template"), (content, kind)]
        else:
            spans.append((content, kind))
        if role in _REPLY:
            found[-1].ends = True
            found.append(Part([]))
        if role in ROLES:
            found[-1].spans.append(("\n", "template"))
    # Nothing stands behind the last turn.
    last = found[-1].spans
    if last and last[-1] == ("\n", "template"):
        last.pop()
    return [part for part in found if part.spans]
