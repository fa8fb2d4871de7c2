"""Chains for the tests of templates."""

from typing import Any

from udfs.synthesis.formats import compose_answer, compose_question, decompose
from udfs.templates.bank import load_bank


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
    """A pair of every format, one whose answer is not among its options, and options that speak of the others."""
    options = ["Oslo", "Rome", "Paris", "Lima"]
    return [
        pair(f"Which city is {tag}one?", "Bern"),
        pair(f"Which city is {tag}two?", "Paris", options),
        pair(f"Which city is {tag}three?", "Quito", None, "It says so in the text."),
        pair(f"Which city is {tag}four?", "Rome", options, "There is a hint: the river"),
        pair(f"Which city is {tag}five?", "Cairo", options),
        pair(f"Which city is {tag}six?", "Accra", options, "None of them fits, it is another one."),
        pair(f"Which city is {tag}seven?", "None of the above", [*options, "None of the above"]),
        pair(f"Which city is {tag}eight?", "Lima", [*options, "Cannot be determined."]),
        pair(f"Which city is {tag}nine?", "All of the above", [*options, "All of the above"]),
    ]


def chinese_pairs(tag: str = "") -> list[dict[str, str]]:
    """The same kinds of pairs in Chinese."""
    options = ["奥斯陆", "罗马", "巴黎", "利马"]
    return [
        pair(f"{tag}第一座城市是哪里？", "伯尔尼"),
        pair(f"{tag}第二座城市是哪里？", "巴黎", options),
        pair(f"{tag}第三座城市是哪里？", "基多", None, "文中是这样说的。"),
        pair(f"{tag}第四座城市是哪里？", "罗马", options, "有一个线索：那条河"),
        pair(f"{tag}第五座城市是哪里？", "开罗", options),
        pair(f"{tag}第六座城市是哪里？", "以上都不对", [*options, "以上都不对"]),
        pair(f"{tag}第七座城市是哪里？", "利马", [*options, "无法确定。"], "只有利马靠海。"),
    ]


def lost(text: str, rows: list[dict], language: str = "en") -> list[str]:
    """What a rendered text lacks of its contexts and pairs. An option that says that none holds may be worded anew."""
    bank = load_bank(language)
    wanted = []
    for entry in rows:
        wanted.append(entry["context"])
        for each in entry["pairs"]:
            parts = decompose(each["instruction"], each["response"])
            wanted += [parts.question, *(parts.options or ()), parts.reasoning or "", parts.final]

    def stands(piece: str) -> bool:
        section = bank.stock.get(piece.casefold())
        phrases = getattr(bank, section) if section else ()
        return piece in text or any(phrase.text in text.casefold() for phrase in phrases)

    return [piece for piece in wanted if not stands(piece)]
