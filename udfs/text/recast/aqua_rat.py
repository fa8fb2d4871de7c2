"""AQuA-RAT JSON lines: word problems with five options, a rationale and the letter of the right option.

Source of the shape: https://github.com/google-deepmind/AQuA. The problem carries everything needed to solve it, so
it is the context; the question asks it again with its options, and the rationale is the reasoning.
"""

import re
from collections.abc import Iterator

from udfs.synthesis.formats import compose_answer, compose_question
from udfs.text.recast.files import json_lines, parse
from udfs.text.recast.records import Malformed, Recast, RecastOptions, example, take

DATASET = "AQUA_RAT_yes_opt"
_OPTION = re.compile(r"\s*([A-Z])\s*\)\s*(\S.*?)\s*")

entries = json_lines


def recast(line: bytes, options: RecastOptions) -> Iterator[Recast]:
    """The problem as its own context, with one multiple-choice question answered step by step."""
    record = parse(line)
    problem = take(record, "question", str).strip()
    if options.selects(problem):
        listed = take(record, "options", list)
        choices = dict(_option(option) for option in listed)
        if len(choices) != len(listed):
            raise Malformed("invalid_record", "two options have the same letter")
        correct = take(record, "correct", str).strip()
        if correct not in choices:
            raise Malformed("invalid_record", f"'correct' is {correct!r}, not one of {', '.join(choices)}")
        question = compose_question(problem, list(choices.values()), chain_of_thought=True)
        answer = compose_answer(choices[correct], take(record, "rationale", str).strip())
        yield example(problem, [(question, answer)], DATASET)


def _option(option: object) -> tuple[str, str]:
    """Letter and text of an option like ``B)6000``."""
    match = _OPTION.fullmatch(option) if isinstance(option, str) else None
    if match is None:
        raise Malformed("invalid_record", f"option {option!r} is not of the form 'A)text' on one line")
    return match[1], match[2]
