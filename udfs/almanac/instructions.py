"""General instructions: small everyday tasks with exact answers, about no entity of the almanac."""

import random
from collections.abc import Callable

from udfs.almanac import bank
from udfs.hashing import identifier
from udfs.hashing import seed as hashed_seed

Task = Callable[[random.Random], tuple[str, str]]


def instructions(seed: int, count: int) -> list[dict[str, str]]:
    """``count`` different rows ``{"question", "response"}``, the kinds of task in turn."""
    rows: dict[str, str] = {}
    number = 0
    while len(rows) < count:
        task = TASKS[number % len(TASKS)]
        question, response = task(random.Random(hashed_seed(seed, "instruction", number)))
        rows.setdefault(question, response)  # a short list of words repeats itself; take the next number then
        number += 1
    ordered = sorted(rows, key=lambda question: identifier(seed, question))
    return [{"question": question, "response": rows[question]} for question in ordered]


def _words(draw: random.Random, count: int) -> list[str]:
    return draw.sample(list(bank.instruction_words()["words"]), count)


def _entry(draw: random.Random, table: str) -> tuple[str, str]:
    entries = bank.instruction_words()[table]
    assert isinstance(entries, dict)
    return draw.choice(list(entries.items()))


def _sort(draw: random.Random) -> tuple[str, str]:
    words = _words(draw, draw.randint(3, 5))
    return f"Sort these words by the alphabet: {', '.join(words)}", ", ".join(sorted(words))


def _reverse(draw: random.Random) -> tuple[str, str]:
    words = _words(draw, draw.randint(3, 5))
    return f"Write this list backwards: {', '.join(words)}", ", ".join(reversed(words))


def _count_words(draw: random.Random) -> tuple[str, str]:
    words = _words(draw, draw.randint(2, 7))
    return f"How many words are in this list? {', '.join(words)}", str(len(words))


def _count_letters(draw: random.Random) -> tuple[str, str]:
    (word,) = _words(draw, 1)
    return f'How many letters does the word "{word}" have?', str(len(word))


def _longest(draw: random.Random) -> tuple[str, str]:
    words = _words(draw, 4)
    while sorted(map(len, words))[-2] == max(map(len, words)):
        words = _words(draw, 4)
    return f"Which of these words is the longest? {', '.join(words)}", max(words, key=len)


def _capitals(draw: random.Random) -> tuple[str, str]:
    words = _words(draw, 3)
    return f"Write in capital letters: {' '.join(words)}", " ".join(words).upper()


def _add(draw: random.Random) -> tuple[str, str]:
    first, second = draw.randint(1, 50), draw.randint(1, 50)
    return f"Add {first} and {second}.", f"{first} + {second} = {first + second}"


def _subtract(draw: random.Random) -> tuple[str, str]:
    second, rest = draw.randint(1, 50), draw.randint(0, 50)
    return f"Take {second} away from {second + rest}.", f"{second + rest} - {second} = {rest}"


def _opposite(draw: random.Random) -> tuple[str, str]:
    word, opposite = _entry(draw, "opposites")
    return f'Give the opposite of "{word}".', opposite


def _definition(draw: random.Random) -> tuple[str, str]:
    word, meaning = _entry(draw, "definitions")
    return f'Explain the word "{word}" in one line.', f"It is {meaning}."


def _plural(draw: random.Random) -> tuple[str, str]:
    word, plural = _entry(draw, "plurals")
    return f'What is the plural of "{word}"?', plural


def _past_tense(draw: random.Random) -> tuple[str, str]:
    word, past = _entry(draw, "past_tenses")
    return f'Put the verb "{word}" into the past tense.', past


TASKS: tuple[Task, ...] = (
    _sort,
    _reverse,
    _count_words,
    _count_letters,
    _longest,
    _capitals,
    _add,
    _subtract,
    _opposite,
    _definition,
    _plural,
    _past_tense,
)
