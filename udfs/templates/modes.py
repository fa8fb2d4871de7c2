"""The five ways a text and its pairs become training text.

Every mode takes the shots of one M-shot text and gives one piece of text per shot, all in the style that was drawn for
the whole. Source of the modes: the published templating code; the wording is the bank's own.
"""

from collections.abc import Callable
from typing import NamedTuple

from udfs.templates.bank import Bank, Speakers, TurnStyle
from udfs.templates.draws import Draws
from udfs.templates.pairs import Turn


class Shot(NamedTuple):
    """One document with its pairs, at least one."""

    context: str
    turns: list[Turn]


class ClassicStyle(NamedTuple):
    """How often the classic mode does without a lead-in, whether the pairs stand before the text, and what stands
    between two pairs."""

    plain_reading: float
    plain_comprehension: float
    inverted: bool
    separator: str


def classic(shots: list[Shot], bank: Bank, draws: Draws, style: ClassicStyle) -> list[str]:
    """Lead-in and text, lead-in and pairs."""
    separator = style.separator
    blocks = [separator.join([pattern.whole.fill(values) for pattern, values in shot.turns]) for shot in shots]
    if style.inverted:
        pairs_first = draws.pick("inverted pairs", bank.inverted_pairs)
        text_after = draws.pick("inverted text", bank.inverted_text)
        return [
            pairs_first.fill({"pairs": block}) + "\n\n" + text_after.fill({"context": shot.context})
            for shot, block in zip(shots, blocks, strict=True)
        ]
    heads = [shot.context for shot in shots]
    if draws.unit("plain reading") >= style.plain_reading:
        reading = draws.pick("reading", bank.reading)
        heads = [reading.fill({"context": context}) for context in heads]
    if draws.unit("plain comprehension") >= style.plain_comprehension:
        lead = draws.pick("reading end", bank.reading_ends).text + draws.pick("comprehension", bank.comprehension).text
        heads = [head + lead for head in heads]
    return [f"{head}{separator}{block}" for head, block in zip(heads, blocks, strict=True)]


def dialogue(shots: list[Shot], bank: Bank, draws: Draws) -> list[str]:
    """Text, then its pairs as turns of two speakers."""
    frame = draws.pick("dialogue frame", bank.dialogue_frames)
    speakers = draws.pick("speakers", bank.speakers)
    style = draws.pick("turn", bank.turns)
    names = {"asker": speakers.asker, "replier": speakers.replier}
    return [
        frame.fill(names | {"context": shot.context, "dialogue": style.separator.join(_turns(shot, speakers, style))})
        for shot in shots
    ]


def next_turn(shots: list[Shot], bank: Bank, draws: Draws) -> list[str]:
    """Text, a dialogue that stops after a question, and the turn that comes next."""
    frame = draws.pick("next turn", bank.next_turn)
    speakers = draws.pick("speakers", bank.speakers)
    style = draws.pick("turn", bank.turns)
    pieces = []
    for shot in shots:
        values = {
            "asker": speakers.asker,
            "replier": speakers.replier,
            "context": shot.context,
            "dialogue": style.separator.join(_turns(shot, speakers, style)[:-1]),
            "reply": shot.turns[-1].reply,
        }
        pieces.append(frame.fill(values))
    return pieces


def numbered(shots: list[Shot], bank: Bank, draws: Draws) -> list[str]:
    """Text, all questions in a numbered list, then all answers in one."""
    frame = draws.pick("numbered frame", bank.numbered_frames)
    items = draws.pick("numbered items", bank.numbered_items)
    pieces = []
    for shot in shots:
        rows = [
            {"number": str(number), "ask": turn.ask, "reply": turn.reply} for number, turn in enumerate(shot.turns, 1)
        ]
        values = {
            "context": shot.context,
            "questions": items.separator.join([items.question.fill(row) for row in rows]),
            "answers": items.separator.join([items.answer.fill(row) for row in rows]),
        }
        pieces.append(frame.fill(values))
    return pieces


def inline(shots: list[Shot], bank: Bank, draws: Draws) -> list[str]:
    """Text, all pairs but the last as solved examples, then the last."""
    style = draws.pick("inline", bank.inline)
    pieces = []
    for shot in shots:
        *solved, last = shot.turns
        examples = [
            style.example.fill({"number": str(number), "ask": turn.ask, "reply": turn.reply})
            for number, turn in enumerate(solved, 1)
        ]
        values = {
            "context": shot.context,
            "examples": style.separator.join(examples),
            "ask": last.ask,
            "reply": last.reply,
        }
        pieces.append(style.frame.fill(values))
    return pieces


MODES: dict[str, Callable[[list[Shot], Bank, Draws], list[str]]] = {
    "dialogue": dialogue,
    "numbered": numbered,
    "inline": inline,
    "next_turn": next_turn,
}


def _turns(shot: Shot, speakers: Speakers, style: TurnStyle) -> list[str]:
    turns = []
    for turn in shot.turns:
        turns.append(style.turn.fill({"speaker": speakers.asker, "words": turn.ask}))
        turns.append(style.turn.fill({"speaker": speakers.replier, "words": turn.reply}))
    return turns
