"""TAT-QA JSON: excerpts of financial reports, each a table, the paragraphs around it, and questions about both.

Source of the shape: https://github.com/NExTplusplus/TAT-QA. The table is written one row to a line, cells separated
by `` | ``. An answer carries its scale (``1,496.5 million``, ``-22.22%``); several spans are joined by ``; ``. The
derivation of a calculated, compared or counted answer is its reasoning.
"""

from collections.abc import Iterator
from typing import Any

from udfs.synthesis.formats import compose_answer, compose_question
from udfs.text.recast.files import json_file
from udfs.text.recast.records import Malformed, Recast, RecastOptions, example, refused, take, text

_SCALES = ("", "thousand", "million", "billion", "percent")


def entries(path: str) -> Iterator[Any]:
    """The excerpts of the file."""
    excerpts = json_file(path)
    if not isinstance(excerpts, list):
        raise Malformed("invalid_record", f"{path} must hold a list of excerpts")
    yield from excerpts


def recast(excerpt: Any, options: RecastOptions) -> Iterator[Recast]:
    """The excerpt as a text and, with all its questions, as an example."""
    table = take(excerpt, "table", dict)
    paragraphs = sorted(take(excerpt, "paragraphs", list), key=lambda paragraph: take(paragraph, "order", int))
    context = "\n\n".join([render(take(table, "table", list)), *(take(entry, "text", str) for entry in paragraphs)])
    if not options.selects(context):
        return
    yield text(context, uid=str(table.get("uid", "")))
    pairs: list[tuple[str, str]] = []
    for question in take(excerpt, "questions", list):
        try:
            pairs.append(_pair(question))
        except Malformed as error:
            yield refused(error, question)
    if pairs:
        yield example(context, pairs)


def render(table: list[Any]) -> str:
    """The rows that hold something, one to a line; empty cells keep their place."""
    rows = [[" ".join(str(cell).split()) for cell in row] for row in table if isinstance(row, list)]
    return "\n".join(" | ".join(row).strip() for row in rows if any(row))


def _pair(question: Any) -> tuple[str, str]:
    asked = take(question, "question", str).strip()
    answer = question.get("answer")
    scale = question.get("scale") or ""
    if scale not in _SCALES:
        raise Malformed("invalid_record", f"'scale' is {scale!r}, not one of {', '.join(filter(None, _SCALES))}")
    spans = answer if isinstance(answer, list) else [answer]
    values = [str(span).strip() for span in spans if isinstance(span, str | int | float) and str(span).strip()]
    if not values:
        raise Malformed("no_pairs", "the question has no answer")
    final = "; ".join(_scaled(value, scale) for value in values)
    # The items of a count are separated by ##.
    derivation = "; ".join(part.strip() for part in str(question.get("derivation") or "").split("##") if part.strip())
    return compose_question(asked, chain_of_thought=bool(derivation)), compose_answer(final, derivation or None)


def _scaled(value: str, scale: str) -> str:
    if not scale or value.endswith((scale, "%")):
        return value
    return f"{value}%" if scale == "percent" else f"{value} {scale}"
