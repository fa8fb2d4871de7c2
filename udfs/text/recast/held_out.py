"""Held-out questions from a published set: what people asked about texts, put as a choice of four.

The wrong options are the answers to other questions about the same text, so each of them stands in it and fits its
subject; only the question decides. A text with fewer than four different answers gives no questions.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from udfs.errors import DataError
from udfs.hashing import identifier, unit
from udfs.text.recast.records import Recast

OPTIONS = 4


def held_out_questions(records: Iterable[Recast], domain: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Questions in the form that ``evaluate`` reads, from the examples among ``records``.

    Args:
        records: what a reader yields. Contexts should be whole: the subject of a question is its context, and the
            wrong options come from there.
        domain: subject area that the questions are counted under.
        seed: decides which answers stand beside the right one, and in which place.

    Yields:
        ``{"question_id", "domain", "subject", "relation", "prompt", "options": 4 texts, "gold", "answer"}``.
    """
    for record in records:
        if record["kind"] != "example":
            continue
        subject = identifier("subject", record["context"])
        answers = {_folded(pair["A"]): pair["A"] for pair in record["QA_list"]}
        asked: set[str] = set()
        for pair in record["QA_list"]:
            name = identifier("held-out question", subject, pair["Q"])
            others = [text for key, text in answers.items() if key != _folded(pair["A"])]
            if len(others) < OPTIONS - 1 or name in asked:
                continue
            asked.add(name)
            others.sort(key=lambda text: unit("distractor", seed, name, text))
            options = others[: OPTIONS - 1]
            gold = int(unit("place", seed, name) * OPTIONS)
            options.insert(gold, pair["A"])
            yield {
                "question_id": name,
                "domain": domain,
                "subject": subject,
                "relation": "asked",
                "prompt": f"Question: {pair['Q']}\nAnswer:",
                "options": options,
                "gold": gold,
                "answer": pair["A"],
            }


def write_held_out_questions(path: Path, records: Iterable[Recast], domain: str, seed: int = 0) -> int:
    """Write ``held_out_questions`` as JSON lines, replacing the file in one step; gives their number.

    Raises:
        DataError: there is not one question.
    """
    lines = [json.dumps(entry, ensure_ascii=False) for entry in held_out_questions(records, domain, seed)]
    if not lines:
        raise DataError(
            f"no held-out question for {path.name}: no text has questions with {OPTIONS} different answers. Take "
            "another part of the set, and whole contexts (no `window`)."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)
    return len(lines)


def _folded(answer: str) -> str:
    """Two answers that differ only in case or in a final mark are the same option."""
    return " ".join(answer.lower().split()).rstrip(".,;:")
