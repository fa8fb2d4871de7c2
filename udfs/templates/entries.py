"""What the YAML files of a template bank hold: one model per file, mapping ids to templates."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from udfs.config import Config

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Texts = Annotated[dict[Id, str], Field(min_length=1)]
LabelKind = Literal["lower", "upper", "digit", "roman", "none"]


class PatternEntry(Config):
    """A pair: ``ask_prefix + ask + joint + reply_prefix + reply``; dialogues and lists use ask and reply alone."""

    ask: str
    reply: str
    ask_prefix: str = ""
    reply_prefix: str = ""
    joint: str = "\n"
    separator: str = "\n\n"


Patterns = Annotated[dict[Id, PatternEntry], Field(min_length=1)]


class OptionStyleEntry(Config):
    """How options are listed, and what of the right one becomes the answer: its label, its text or both."""

    labels: LabelKind
    item: str
    answer: str
    joint: str = "\n"


class OptionsFile(Config):
    """Lists of options: the head above them and the style of the items."""

    heads: Texts
    styles: Annotated[dict[Id, OptionStyleEntry], Field(min_length=1)]


class ClassicFile(Config):
    """Text, then pairs; or, inverted, pairs, then text."""

    reading: Texts
    reading_ends: Texts
    comprehension: Texts
    inverted_pairs: Texts
    inverted_text: Texts
    text_separators: Texts


class SpeakersEntry(Config):
    """Who asks and who replies."""

    asker: str
    replier: str


class TurnEntry(Config):
    """One turn of a dialogue and what stands between two turns."""

    turn: str
    separator: str = "\n"


class DialogueFile(Config):
    """Pairs as the turns of two speakers."""

    frames: Texts
    speakers: Annotated[dict[Id, SpeakersEntry], Field(min_length=1)]
    turns: Annotated[dict[Id, TurnEntry], Field(min_length=1)]


class NumberedItemEntry(Config):
    """One numbered question, and the answer that goes with it."""

    question: str
    answer: str
    separator: str = "\n"


class NumberedFile(Config):
    """All questions in a numbered list, then all answers."""

    frames: Texts
    items: Annotated[dict[Id, NumberedItemEntry], Field(min_length=1)]


class InlineEntry(Config):
    """Solved examples, then one more question with its answer."""

    frame: str
    example: str
    separator: str = "\n\n"


class BankFiles(Config):
    """Every file of a language, by its name."""

    free_form: Patterns
    multiple_choice: Patterns
    chain_of_thought: Patterns
    multiple_choice_chain_of_thought: Patterns
    options: OptionsFile
    classic: ClassicFile
    dialogue: DialogueFile
    numbered: NumberedFile
    inline: Annotated[dict[Id, InlineEntry], Field(min_length=1)]
    next_turn: Texts
