import re
import shutil
from pathlib import Path

import pytest
import yaml

from udfs.errors import ConfigError
from udfs.synthesis.formats import PairFormat
from udfs.templates.bank import BANKS, load_bank, read_bank
from udfs.templates.language import LANGUAGES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BANKS / "en", tmp_path / "en"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_english_bank_is_at_least_as_large_as_the_published_one() -> None:
    """Counts of the published bank: patterns as loaded, lead-ins without the empty ones, phrases as loaded."""
    bank = load_bank("en")
    assert len(bank.patterns[PairFormat.FREE_FORM]) >= 79
    assert len(bank.patterns[PairFormat.MULTIPLE_CHOICE]) >= 48
    assert len(bank.patterns[PairFormat.CHAIN_OF_THOUGHT]) >= 210
    assert len(bank.patterns[PairFormat.MULTIPLE_CHOICE_CHAIN_OF_THOUGHT]) >= 240
    assert (len(bank.numbered_frames), len(bank.next_turn), len(bank.inline)) >= (11, 15, 20)
    assert len(bank.reading) >= 50
    assert len(bank.reading_ends) >= 3
    assert len(bank.comprehension) >= 84
    assert len(bank.inverted_pairs) >= 42
    assert len(bank.inverted_text) >= 60
    assert len(bank.option_heads) >= 16
    assert len(bank.option_styles) >= 87
    assert len(bank.numbered_items) >= 64
    assert len(bank.dialogue_frames) >= 15
    assert len(bank.speakers) >= 50
    assert len(bank.none_of_these) + len(bank.unanswerable) >= 82


def test_the_chinese_bank_is_complete_and_chinese() -> None:
    bank = load_bank("zh")
    assert all(len(bank.patterns[kind]) >= 30 for kind in PairFormat)
    assert min(len(bank.reading), len(bank.comprehension), len(bank.option_styles), len(bank.none_of_these)) >= 20
    assert min(len(bank.numbered_frames), len(bank.inline), len(bank.next_turn), len(bank.speakers)) >= 10
    for path in sorted((BANKS / "zh").glob("*.yaml")):
        texts = "".join(path.read_text(encoding="utf-8").splitlines(keepends=True))
        assert not re.search(r"[\u4e00-\u9fff][,;?!][ \u4e00-\u9fff]", texts), path


def test_banks_do_not_share_templates() -> None:
    assert load_bank("en").version.startswith("en-")
    assert load_bank("zh").version.startswith("zh-")


def raw(language: str, file: str) -> dict[str, dict]:
    return yaml.safe_load((BANKS / language / f"{file}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("file", PairFormat)
def test_patterns_fit_pairs_before_their_text_and_answers_that_are_sentences(language: str, file: str) -> None:
    for key, entry in raw(language, file).items():
        written = " ".join(entry.values())
        assert not re.search(r"\b(text|passage) (above|below)\b|上文|下文|以上", written), key
        # A full stop inside an answer would stand in the middle of a sentence that goes on.
        assert re.search(r"\{answer\}([.。]|\n|$)", entry["reply"]), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_headings_begin_a_line(language: str) -> None:
    assert all("\n" in end for end in raw(language, "classic")["reading_ends"].values())
    assert all("\n{dialogue}" in frame for frame in raw(language, "dialogue")["frames"].values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_speakers_can_be_spoken_of(language: str) -> None:
    names = {name for entry in raw(language, "dialogue")["speakers"].values() for name in entry.values()}
    assert names.isdisjoint({"I", "Me", "You", "Q", "Question", "Answer", "问", "答", "我", "你"})


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'xx'.*en"):
        load_bank("xx")


def test_the_version_follows_the_content_and_not_the_order(folder: Path) -> None:
    before = read_bank(folder)
    path = folder / "free_form.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(dict(reversed(tree.items())), sort_keys=False), encoding="utf-8")
    moved = read_bank(folder)
    assert moved.version == before.version
    assert [pattern.id for pattern in moved.patterns[PairFormat.FREE_FORM]] == [
        pattern.id for pattern in before.patterns[PairFormat.FREE_FORM]
    ]
    change(path, "Problem: ", "Puzzle: ")
    assert read_bank(folder).version != before.version


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("free_form.yaml", "reply: '{answer}'", "reply: 'so'", "{answer} must occur exactly once"),
        ("free_form.yaml", "joint: ' -> '", "joint: '->'", "white space must stand at both ends"),
        ("free_form.yaml", "ask_prefix: 'Q: '", "ask_prefix: 'Q:'", "a prefix must end in white space"),
        ("free_form.yaml", "bare-line:", "bare-space:", "occurs twice"),
        ("free_form.yaml", "joint: ' ', reply", "joint: '\\n', reply", "says the same"),
        ("free_form.yaml", "bare-line:", "Bare Line:", "Bare Line"),
        ("free_form.yaml", "bare-line:", "bare-line: [", "not valid YAML"),
        ("free_form.yaml", "reply: '{answer}'", "replies: '{answer}'", "question-answer.reply: required"),
        ("chain_of_thought.yaml", "{reasoning}", "reasoning", "{reasoning} must occur exactly once"),
        ("multiple_choice.yaml", "\\n{options}", "", "{options} must occur exactly once"),
        (
            "options.yaml",
            'item: "- {option}", answer: "{option}"',
            'item: "- {option}", answer: "that"',
            "answer must have",
        ),
        (
            "options.yaml",
            'item: "- {option}", answer: "{option}"',
            'item: "- {option}", answer: "{label}"',
            "answer must have",
        ),
        ("options.yaml", "not-answerable: 'not answerable'", "not-answerable: 'None fits'", "stands in none_of_these"),
        ("classic.yaml", "Read this text.", "Read this text..", "doubled punctuation"),
        ("dialogue.yaml", "asker: 'User'", "asker: 'User:'", "must end in a letter or digit"),
        ("dialogue.yaml", "asker: 'A', ", "asker: 'B', ", "both speakers"),
        ("classic.yaml", "\ncomprehension:", "\ncomprehensions:", "comprehension"),
    ],
)
def test_a_damaged_bank_is_refused(folder: Path, file: str, old: str, new: str, message: str) -> None:
    change(folder / file, *(text.replace("'", '"') for text in (old, new)))
    with pytest.raises(ConfigError) as raised:
        read_bank(folder)
    assert message in str(raised.value)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "inline.yaml").unlink()
    with pytest.raises(ConfigError, match="inline: required"):
        read_bank(folder)
