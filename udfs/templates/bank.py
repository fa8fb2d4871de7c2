"""The template bank: YAML files of one language, checked and compiled when loaded.

``bank/<language>/`` has one file per section; a file maps ids to templates (``udfs.templates.entries``). Adding a
template is adding an entry there. The bank's ``version`` is a fingerprint of everything in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

from udfs.config import fingerprint
from udfs.errors import ConfigError
from udfs.synthesis.formats import PairFormat
from udfs.templates.entries import (
    InlineEntry,
    LabelKind,
    NumberedItemEntry,
    OptionStyleEntry,
    PatternEntry,
    SpeakersEntry,
    TurnEntry,
    read_files,
)
from udfs.templates.options import label, stock_phrases
from udfs.templates.segments import CLOSING_BRACKETS, STOPS, WIDE_STOPS, Template, check_literal

BANKS = Path(__file__).parent / "bank"

EntryT = TypeVar("EntryT")
MadeT = TypeVar("MadeT")


@dataclass(frozen=True)
class Phrase:
    """A text without slots."""

    id: str
    text: str


@dataclass(frozen=True)
class Pattern:
    """How one pair is written: ``ask`` holds the question and its options, ``reply`` the reasoning and the answer."""

    id: str
    ask: Template
    reply: Template
    whole: Template  # ask and reply with their prefixes and the joint between
    separator: str  # between two pairs


@dataclass(frozen=True, eq=False)
class OptionStyle:
    """How options are listed. ``joint`` may begin with a stop."""

    id: str
    labels: LabelKind
    item: Template
    answer: Template
    joint: str


@lru_cache(maxsize=4096)
def option_list(style: OptionStyle, number: int, joint: str) -> Template:
    """A list of so many options, labelled."""
    labels = [{"label": label(style.labels, i)} for i in range(number)]
    return style.item.repeated(labels, joint)


@dataclass(frozen=True)
class Speakers:
    """Who asks and who replies."""

    id: str
    asker: str
    replier: str


@dataclass(frozen=True)
class TurnStyle:
    """One turn of a dialogue."""

    id: str
    turn: Template
    separator: str


@dataclass(frozen=True)
class NumberedItems:
    """Items of the two numbered lists."""

    id: str
    question: Template
    answer: Template
    separator: str


@dataclass(frozen=True)
class Inline:
    """Solved examples inside one text."""

    id: str
    frame: Template
    example: Template
    separator: str


@dataclass(frozen=True)
class Bank:
    """All templates of a language, ready to be filled. Sections are in the order of their ids."""

    language: str
    version: str
    patterns: Mapping[PairFormat, tuple[Pattern, ...]]
    option_heads: tuple[Phrase, ...]
    option_styles: tuple[OptionStyle, ...]
    none_of_these: tuple[Phrase, ...]
    unanswerable: tuple[Phrase, ...]
    # What an option may say that stands for one of the two sections above: the phrase in small letters -> the section.
    stock: Mapping[str, str]
    reading: tuple[Template, ...]
    reading_ends: tuple[Phrase, ...]
    comprehension: tuple[Phrase, ...]
    inverted_pairs: tuple[Template, ...]
    inverted_text: tuple[Template, ...]
    text_separators: tuple[Phrase, ...]
    dialogue_frames: tuple[Template, ...]
    speakers: tuple[Speakers, ...]
    turns: tuple[TurnStyle, ...]
    numbered_frames: tuple[Template, ...]
    numbered_items: tuple[NumberedItems, ...]
    inline: tuple[Inline, ...]
    next_turn: tuple[Template, ...]


@cache
def load_bank(language: str = "en") -> Bank:
    """The bank of a language, loaded once per process.

    Raises:
        ConfigError: there is no bank of that language, or one of its templates is not as it must be.
    """
    folder = BANKS / language
    if not folder.is_dir():
        known = ", ".join(sorted(entry.name for entry in BANKS.iterdir() if entry.is_dir()))
        raise ConfigError(f"there is no template bank for the language {language!r}. There are banks for: {known}.")
    return read_bank(folder)


def read_bank(folder: Path) -> Bank:
    """The bank in a folder; the folder's name is its language.

    Raises:
        ConfigError: a file, a section or a slot is missing or unknown, an id or a template occurs twice, a template
            would double punctuation; the message names the template.
    """
    files = read_files(folder)
    classic, dialogue, numbered = files.classic, files.dialogue, files.numbered
    if all(style.labels == "digit" for style in files.options.styles.values()):
        raise ConfigError(
            "options/styles needs a style without digits: numbered questions cannot do with numbered options."
        )
    stock, written = stock_phrases(
        {"none_of_these": files.options.none_of_these, "unanswerable": files.options.unanswerable}
    )
    speakers = ("asker", "replier")
    return Bank(
        language=folder.name,
        version=f"{folder.name}-{fingerprint(files)}",
        patterns={
            PairFormat.FREE_FORM: _section("free_form", files.free_form, _pattern(("question",), ("answer",))),
            PairFormat.MULTIPLE_CHOICE: _section(
                "multiple_choice", files.multiple_choice, _pattern(("question", "options"), ("answer",))
            ),
            PairFormat.CHAIN_OF_THOUGHT: _section(
                "chain_of_thought", files.chain_of_thought, _pattern(("question",), ("reasoning", "answer"))
            ),
            PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT: _section(
                "multiple_choice_chain_of_thought",
                files.multiple_choice_chain_of_thought,
                _pattern(("question", "options"), ("reasoning", "answer")),
            ),
        },
        option_heads=_section("options/heads", files.options.heads, _head),
        option_styles=_section("options/styles", files.options.styles, _option_style),
        none_of_these=_section("options/none_of_these", written["none_of_these"], _phrase),
        unanswerable=_section("options/unanswerable", written["unanswerable"], _phrase),
        stock=stock,
        reading=_section("classic/reading", classic.reading, _template("context")),
        reading_ends=_section("classic/reading_ends", classic.reading_ends, _spaced_phrase),
        comprehension=_section("classic/comprehension", classic.comprehension, _phrase),
        inverted_pairs=_section("classic/inverted_pairs", classic.inverted_pairs, _template("pairs")),
        inverted_text=_section("classic/inverted_text", classic.inverted_text, _template("context")),
        text_separators=_section("classic/text_separators", classic.text_separators, _spaced_phrase),
        dialogue_frames=_section(
            "dialogue/frames", dialogue.frames, _template("context", "dialogue", optional=speakers)
        ),
        speakers=_section("dialogue/speakers", dialogue.speakers, _speakers),
        turns=_section("dialogue/turns", dialogue.turns, _turn),
        numbered_frames=_section("numbered/frames", numbered.frames, _template("context", "questions", "answers")),
        numbered_items=_section("numbered/items", numbered.items, _numbered),
        inline=_section("inline", files.inline, _inline),
        next_turn=_section("next_turn", files.next_turn, _template("context", "dialogue", "reply", optional=speakers)),
    )


def _section(section: str, entries: Mapping[str, EntryT], make: Callable[[str, EntryT], MadeT]) -> tuple[MadeT, ...]:
    # In the order of the ids: moving an entry inside its file changes neither the version nor any draw.
    names: dict[str, str] = {}
    for key in sorted(entries):
        other = names.setdefault(repr(entries[key]), key)
        if other != key:
            raise ConfigError(f"{section}/{key} says the same as {section}/{other}. Remove one of them.")
    return tuple(make(f"{section}/{key}", entries[key]) for key in sorted(entries))


def _template(*required: str, optional: tuple[str, ...] = ()) -> Callable[[str, str], Template]:
    return lambda name, source: Template(name, source, required, optional)


def _pattern(ask: tuple[str, ...], reply: tuple[str, ...]) -> Callable[[str, PatternEntry], Pattern]:
    def make(name: str, entry: PatternEntry) -> Pattern:
        for prefix in (entry.ask_prefix, entry.reply_prefix):
            check_literal(name, prefix)
            if prefix and not (prefix[-1].isspace() or prefix[-1] in WIDE_STOPS or prefix[-1] in CLOSING_BRACKETS):
                raise ConfigError(f"{name}: a prefix must end in white space or in a full-width mark: {prefix!r}.")
        joint = _spaced(name, entry.joint)
        return Pattern(
            id=name,
            ask=Template(name, entry.ask, ask),
            reply=Template(name, entry.reply, reply),
            whole=Template(
                name, entry.ask_prefix + entry.ask + joint + entry.reply_prefix + entry.reply, (*ask, *reply)
            ),
            separator=_spaced(name, entry.separator),
        )

    return make


def _option_style(name: str, entry: OptionStyleEntry) -> OptionStyle:
    slots = ("option",) if entry.labels == "none" else ("label", "option")
    used = tuple(slot for slot in slots if f"{{{slot}}}" in entry.answer)
    if not used:
        allowed = " or ".join(f"{{{slot}}}" for slot in slots)
        raise ConfigError(f"{name}: the answer must have {allowed}: {entry.answer!r}.")
    # A stop may open the joint: options in one line are separated by commas and semicolons.
    stop = entry.joint[:1] if entry.joint[:1] in STOPS else ""
    return OptionStyle(
        id=name,
        labels=entry.labels,
        item=Template(name, entry.item, slots),
        answer=Template(name, entry.answer, used),
        # A full-width one needs no space behind it.
        joint=stop if entry.joint in WIDE_STOPS else stop + _spaced(name, entry.joint[len(stop) :]),
    )


def _speakers(name: str, entry: SpeakersEntry) -> Speakers:
    for speaker in (entry.asker, entry.replier):
        if not check_literal(name, speaker)[-1:].isalnum():
            raise ConfigError(f"{name}: a speaker's name must end in a letter or digit: {speaker!r}.")
    if entry.asker == entry.replier:
        raise ConfigError(f"{name}: both speakers are called {entry.asker!r}.")
    return Speakers(name, entry.asker, entry.replier)


def _turn(name: str, entry: TurnEntry) -> TurnStyle:
    return TurnStyle(name, Template(name, entry.turn, ("speaker", "words")), _spaced(name, entry.separator))


def _numbered(name: str, entry: NumberedItemEntry) -> NumberedItems:
    return NumberedItems(
        name,
        Template(name, entry.question, ("number", "ask")),
        Template(name, entry.answer, ("number", "reply")),
        _spaced(name, entry.separator),
    )


def _inline(name: str, entry: InlineEntry) -> Inline:
    return Inline(
        name,
        Template(name, entry.frame, ("context", "examples", "ask", "reply")),
        Template(name, entry.example, ("ask", "reply"), ("number",)),
        _spaced(name, entry.separator),
    )


def _head(name: str, text: str) -> Phrase:
    return _phrase(name, text) if text else Phrase(name, text)  # a list of options can do without


def _phrase(name: str, text: str) -> Phrase:
    if not text.strip() or text != text.strip():
        raise ConfigError(f"{name}: a lead-in is not empty and has no white space around it: {text!r}.")
    return Phrase(name, check_literal(name, text))


def _spaced_phrase(name: str, text: str) -> Phrase:
    return Phrase(name, _spaced(name, text))


def _spaced(name: str, text: str) -> str:
    # What stands between two values of the corpus: white space at both ends keeps their punctuation apart.
    if not text or not (text[0].isspace() and text[-1].isspace()):
        raise ConfigError(f"{name}: white space must stand at both ends of a separator: {text!r}.")
    return check_literal(name, text)
