"""PubMedQA JSON: an object of abstracts by id, each with one question, a long answer and a decision.

Source of the shape: https://github.com/pubmedqa/pubmedqa. The tuning collection holds the set twice: with the long
answer as a free-form answer, and as a choice of yes, no and maybe with the long answer as the reasoning.
"""

from collections.abc import Iterator
from typing import Any

from udfs.synthesis.formats import compose_answer, compose_question
from udfs.text.recast.files import json_file
from udfs.text.recast.records import Malformed, Recast, RecastOptions, example, take, text

DECISIONS = ("yes", "no", "maybe")


def entries(path: str) -> Iterator[tuple[str, Any]]:
    """Identifier and record of each abstract."""
    records = json_file(path)
    if not isinstance(records, dict):
        raise Malformed("invalid_record", f"{path} must hold an object of records by id")
    yield from records.items()


def recast_free_form(entry: tuple[str, Any], options: RecastOptions) -> Iterator[Recast]:
    """The abstract as a text, and with its question answered by the long answer."""
    name, record = entry
    context = _context(record)
    if options.selects(context):
        pair = (take(record, "QUESTION", str), take(record, "LONG_ANSWER", str))
        yield text(context, pubmed_id=name)
        yield example(context, [pair], "PubMedQA_no_opt")


def recast_decision(entry: tuple[str, Any], options: RecastOptions) -> Iterator[Recast]:
    """The abstract as a text, and with its question answered by reasoning and then a decision."""
    name, record = entry
    context = _context(record)
    if options.selects(context):
        decision = take(record, "final_decision", str).strip()
        if decision not in DECISIONS:
            raise Malformed("invalid_record", f"'final_decision' is {decision!r}, not one of {', '.join(DECISIONS)}")
        question = compose_question(take(record, "QUESTION", str).strip(), DECISIONS, chain_of_thought=True)
        answer = compose_answer(decision, take(record, "LONG_ANSWER", str).strip())
        yield text(context, pubmed_id=name)
        yield example(context, [(question, answer)], "PubMedQA_yes_opt")


def _context(record: Any) -> str:
    """The sections of the abstract, one paragraph each, led in by their labels as a structured abstract is."""
    sections = take(record, "CONTEXTS", list)
    labels = record.get("LABELS")
    if not sections or not all(isinstance(section, str) for section in sections):
        raise Malformed("invalid_record", "'CONTEXTS' must be a list of texts with at least one")
    if not isinstance(labels, list) or len(labels) != len(sections):
        return "\n\n".join(section.strip() for section in sections)
    return "\n\n".join(f"{label}: {section.strip()}" for label, section in zip(labels, sections, strict=True))
