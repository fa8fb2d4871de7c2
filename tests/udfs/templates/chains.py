"""Chains for the tests of templates."""

from typing import Any

from udfs.synthesis.formats import compose_answer, compose_question, decompose


def pair(
    question: str = "Which city is the capital?",
    final: str = "Paris",
    options: list[str] | None = None,
    reasoning: str | None = None,
) -> dict[str, str]:
    return {
        "instruction": compose_question(question, options, reasoning is not None),
        "response": compose_answer(final, reasoning),
    }


def row(number: int = 0, pairs: list[dict[str, str]] | None = None, chain: str = "chain", **changes: Any) -> dict:
    values = {
        "chain_id": chain,
        "round": number,
        "doc_id": f"doc-{chain}-{number}",
        "chunk": 0,
        "source": "almanac",
        "domain": "places",
        "context": f"Text number {number} tells something. It ends here.",
        "pairs": pairs,
    }
    return values | changes


def mixed_pairs(tag: str = "") -> list[dict[str, str]]:
    """One pair of every format, and one whose answer is not among its options."""
    options = ["Oslo", "Rome", "Paris", "Lima"]
    return [
        pair(f"Which city is {tag}one?", "Bern"),
        pair(f"Which city is {tag}two?", "Paris", options),
        pair(f"Which city is {tag}three?", "Quito", None, "It says so in the text."),
        pair(f"Which city is {tag}four?", "Rome", options, "There is a hint: the river"),
        pair(f"Which city is {tag}five?", "Cairo", options),
        pair(f"Which city is {tag}six?", "Accra", options, "None of them fits, it is another one."),
    ]


def lost(text: str, rows: list[dict]) -> list[str]:
    """What a rendered text lacks of its contexts and pairs."""
    wanted = []
    for entry in rows:
        wanted.append(entry["context"])
        for each in entry["pairs"]:
            parts = decompose(each["instruction"], each["response"])
            wanted += [parts.question, *(parts.options or ()), parts.reasoning or "", parts.final]
    return [piece for piece in wanted if piece not in text]
