"""Self-Instruct seed tasks, JSON lines: an instruction with instances of input and output.

Source of the shape: https://github.com/yizhongw/self-instruct. Every instance becomes an instruction: the task, a line
break, and its input where it has one.
"""

from collections.abc import Iterator

from udfs.text.recast.files import json_lines, parse
from udfs.text.recast.records import Malformed, Recast, RecastOptions, instruction, refused, take

entries = json_lines


def recast(line: bytes, options: RecastOptions) -> Iterator[Recast]:
    """One instruction for each instance of a task."""
    record = parse(line)
    task = take(record, "instruction", str).strip()
    if not options.selects(task):
        return
    for instance in take(record, "instances", list):
        try:
            response = take(instance, "output", str)
            # Blank where the task needs no input, so it is not taken as a field that must hold something.
            given = take(instance, "input", str).strip() if instance.get("input") else ""
            yield instruction(f"{task}\n{given}" if given else task, response)
        except Malformed as error:
            yield refused(error, instance)
