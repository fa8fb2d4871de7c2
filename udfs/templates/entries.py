"""What the YAML files of a template bank hold: one model per file, mapping ids to templates."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints

from udfs.config import Config, build
from udfs.errors import ConfigError

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
    """Lists of options: the head above them, the style of the items, and the ways to say that no option holds."""

    heads: Texts
    styles: Annotated[dict[Id, OptionStyleEntry], Field(min_length=1)]
    none_of_these: Texts
    unanswerable: Texts


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


def read_files(folder: Path) -> BankFiles:
    """The files of a bank, each entry in the shape it must have.

    Raises:
        ConfigError: no valid YAML, a key that occurs twice, a file, a section or a key that is missing or unknown.
    """
    tree = {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}
    return build(BankFiles, tree, f"template bank {folder.name}")


def _read(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(path.read_text(encoding="utf-8"))
    try:
        node = loader.get_single_node()
        _refuse_repeated_keys(node, path)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    finally:
        loader.dispose()


def _refuse_repeated_keys(node: Any, path: Path) -> None:
    # A rule of YAML that PyYAML does not check: it keeps the last one without a word.
    if not isinstance(node, yaml.MappingNode):
        return
    seen = set()
    for key, value in node.value:
        if key.value in seen:
            raise ConfigError(f"{path}: {key.value!r} occurs twice (line {key.start_mark.line + 1}). Ids are unique.")
        seen.add(key.value)
        _refuse_repeated_keys(value, path)
