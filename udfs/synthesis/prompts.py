"""Examples as token ids: what the synthesizer is tuned on and what it is prompted with.

One example is ``{BOS} <CON> {context} </CON>\\n\\n`` (the input half), then pairs joined by blank lines and ``{EOS}``
(the output half); a few-shot prompt is finished examples one after the other, then the input half of the new context.
Source of the format: the published instruction synthesizer (card and code). BOS and EOS are added by id, exactly
once per example; text is never parsed for special tokens.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from udfs.errors import ConfigError
from udfs.synthesis.pairs import CONTEXT_END, CONTEXT_START, DELIMITER, MARKERS, PAIR_END, QUESTION, build

if TYPE_CHECKING:
    from udfs.synthesis.pairs import ParsedCompletion
    from udfs.tokens import Tokenizer

TEMPLATE, CONTEXT, INSTRUCTION, RESPONSE = range(4)

_LOOK_ALIKE = "‹"
_OUTPUT_FOLLOWS = f"{CONTEXT_END}{DELIMITER}"


@dataclass(frozen=True)
class Input:
    """The input half of an example: its ids, and whether the context was cut to make them fit."""

    ids: list[int]
    truncated: bool


class ExampleFormat:
    """Writes examples for one tokenizer.

    Raises:
        ConfigError: the tokenizer joins the end of the input half with the start of the output half into one token, so
            that a prompt could not end where tuning examples have their boundary.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer
        self.bos_id, self.eos_id = tokenizer.bos_id, tokenizer.eos_id
        reserved = sorted({*MARKERS, tokenizer.bos, tokenizer.eos}, key=len, reverse=True)
        self._reserved = re.compile("|".join(map(re.escape, reserved)))
        # Where a tokenizer treats the end of a text or its start unlike the middle, a half encoded alone has other ids
        # than in the whole. Each half is therefore encoded with its neighbour's nearest marker, which is then cut off.
        ids, offsets = tokenizer.offsets(_OUTPUT_FOLLOWS + QUESTION)
        self._lead = _tokens_before(offsets, len(_OUTPUT_FOLLOWS))
        if any(start < len(_OUTPUT_FOLLOWS) < end for start, end in offsets):
            raise ConfigError(
                f"the tokenizer joins {DELIMITER!r} and {QUESTION!r} into one token (ids {ids}), so examples cannot be "
                "divided into prompt and completion. Use a tokenizer that splits at line breaks or at punctuation."
            )

    def neutralise(self, text: str) -> str:
        """``text`` with the first character of each marker and of BOS and EOS replaced by a look-alike, ``‹``."""
        return self._reserved.sub(lambda match: _LOOK_ALIKE + match[0][1:], text)

    def input_text(self, context: str) -> str:
        """The input half as text, with BOS written out."""
        return f"{self.tokenizer.bos} {CONTEXT_START} {self.neutralise(context)} {CONTEXT_END}{DELIMITER}"

    def output_text(self, pairs: Sequence[Mapping[str, Any]]) -> str:
        """The output half as text, with EOS written out; raises DataError for a pair with an empty side."""
        return build(self._neutral(pairs)) + self.tokenizer.eos

    def encode_input(self, context: str) -> list[int]:
        """Ids of the input half, BOS included."""
        return self._encode_input(self.neutralise(context))

    def fit_input(self, context: str, budget: int) -> Input | None:
        """The input half within ``budget`` tokens; the end of a longer context is cut off at a token boundary.

        Returns:
            None if not even one token of the context fits, or nothing but spaces would be left of it.
        """
        context = self.neutralise(context)
        ids = self._encode_input(context)
        if len(ids) <= budget:
            return Input(ids, False)
        start = len(f" {CONTEXT_START} ")
        _, offsets = self.tokenizer.offsets(_input_body(context))
        room = budget - (len(ids) - sum(start <= begin < start + len(context) for begin, _ in offsets))
        while room > 0:
            kept = context[: max(_end_of(offsets, start, room) - start, 0)]
            if not kept.strip():
                return None
            ids = self._encode_input(kept)
            if len(ids) <= budget:
                return Input(ids, True)
            room -= len(ids) - budget  # a cut can make the last word fall into more tokens than it had
        return None

    def encode_output(self, pairs: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """Ids and roles (template, instruction, response) of the output half, EOS included.

        Raises:
            DataError: a side of a pair is empty.
        """
        pairs = self._neutral(pairs)
        ids, offsets = self.tokenizer.offsets(_OUTPUT_FOLLOWS + build(pairs))
        roles = _character_roles(pairs)
        ids, offsets = ids[self._lead :], offsets[self._lead :]
        # A token that covers a space and a word is the word's: the role of a token is that of its last character.
        return [*ids, self.eos_id], [*(roles[max(start, end - 1)] for start, end in offsets), RESPONSE]

    def encode_example(self, context: str, pairs: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        """Ids and roles of a whole example; the input half has the role context."""
        head = self.encode_input(context)
        ids, roles = self.encode_output(pairs)
        return head + ids, [CONTEXT] * len(head) + roles

    def carry(self, completion: str, ids: Sequence[int], parsed: "ParsedCompletion") -> list[int]:
        """The output half that later rounds see of a finished document, EOS included.

        The generated ids themselves if they are pairs and nothing else (a tail without ``</END>`` is cut off), so that
        the prefix cache knows them; otherwise the parsed pairs, encoded anew.
        """
        if all(piece["reason"] == "truncated" for piece in parsed.rejected):
            exact = self._until(completion[: completion.rfind(PAIR_END) + len(PAIR_END)], ids)
            if exact is not None:
                return [*exact, self.eos_id]
        return self.encode_output(parsed.pairs)[0]

    def _until(self, text: str, ids: Sequence[int]) -> list[int] | None:
        """The ids that stand for ``text``, a beginning of what all ``ids`` stand for; None if a token straddles its
        end."""
        if self.tokenizer.decode(ids) == text:  # nearly always
            return list(ids)
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.tokenizer.decode(ids[:middle])) < len(text):
                low = middle + 1
            else:
                high = middle
        return list(ids[:low]) if self.tokenizer.decode(ids[:low]) == text else None

    def _neutral(self, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        return [{side: self.neutralise(pair[side]) for side in ("instruction", "response")} for pair in pairs]

    def _encode_input(self, context: str) -> list[int]:
        body = _input_body(context)
        ids, offsets = self.tokenizer.offsets(body + QUESTION)
        return [self.bos_id, *ids[: _tokens_before(offsets, len(body))]]


def _input_body(context: str) -> str:
    return f" {CONTEXT_START} {context} {CONTEXT_END}{DELIMITER}"


def _tokens_before(offsets: Sequence[tuple[int, int]], boundary: int) -> int:
    return next((index for index, (_, end) in enumerate(offsets) if end > boundary), len(offsets))


def _end_of(offsets: Sequence[tuple[int, int]], start: int, count: int) -> int:
    """Where the ``count``-th token from character ``start`` on ends. A character made of several tokens is left out
    unless all of them are in."""
    inside = [span for span in offsets if span[0] >= start]
    end = inside[count - 1][1]
    return end if count == len(inside) or inside[count][0] >= end else inside[count][0]


def _character_roles(pairs: Sequence[Mapping[str, Any]]) -> bytes:
    """A role for each character of the anchor and the pairs after it."""
    roles = bytearray([CONTEXT]) * len(_OUTPUT_FOLLOWS)
    template = bytes([TEMPLATE])
    for index, pair in enumerate(pairs):
        roles += template * (len(DELIMITER) * (index > 0) + len(f"{QUESTION} "))
        roles += bytes([INSTRUCTION]) * len(pair["instruction"])
        roles += template * len(" <ANS> ")
        roles += bytes([RESPONSE]) * len(pair["response"])
        roles += template * len(f" {PAIR_END}")
    return bytes(roles)
