"""Rows of ``tuning_examples``, ``instructions`` and ``conversations`` from files, and the rejects."""

from collections.abc import Iterator, Sequence
from typing import Any

from udfs.hashing import identifier
from udfs.rejects import reject
from udfs.text.messages import NotAConversation, messages_of
from udfs.text.readers import Record, as_json
from udfs.text.sources import TuningSource

STAGE = "collect"

_KINDS = {"examples": "example", "instructions": "instruction", "conversations": "conversation"}
_Row = tuple[str, dict[str, Any]]


def tuning_rows(uri: str, sources: Sequence[TuningSource]) -> Iterator[_Row]:
    """``(table, row)`` for each record of a file, for each source the file belongs to.

    Raises:
        OSError: the store fails in a way that another attempt may mend.
    """
    for source in sources:
        if not source.takes(uri):
            continue
        name = source.name_of(uri)
        for item in source.records(uri, _KINDS[source.kind], STAGE):
            if not isinstance(item, Record):
                yield "rejects", item
            elif source.kind == "examples":
                # A published set knows its name in the tuning collection, unless the source is given another.
                yield from _example(item, source.name or item.fields.get("dataset") or name, source.license)
            elif source.kind == "conversations":
                yield _conversation(item, source.name or item.fields.get("dataset") or name, source.license)
            else:
                yield _instruction(item, name, source.license)


def _example(record: Record, dataset: str, license: str | None) -> Iterator[_Row]:
    """The example with its usable pairs; each pair that is not is a reject of its own."""
    context, listed = record.fields.get("context"), record.fields.get("QA_list")
    if not _is_text(context):
        yield _rejected(record, "missing_text", "'context' must be a string that is not blank")
        return
    if not isinstance(listed, list):
        yield _rejected(record, "invalid_record", f"'QA_list' must be a list, not {type(listed).__name__}")
        return
    pairs = []
    for position, entry in enumerate(listed):
        if isinstance(entry, dict) and _is_text(entry.get("Q")) and _is_text(entry.get("A")):
            pairs.append({"Q": entry["Q"], "A": entry["A"]})
        else:
            place = f"{record.record_id}/QA_list/{position}"
            detail = "'Q' and 'A' must both be strings that are not blank"
            yield "rejects", reject(STAGE, place, "invalid_record", detail, as_json(entry))
    if not pairs:
        yield _rejected(record, "no_pairs", f"none of {len(listed)} pairs is usable")
        return
    parts = [part for pair in pairs for part in (pair["Q"], pair["A"])]
    yield (
        "tuning_examples",
        {
            "example_id": identifier(dataset, context, *parts),
            "dataset": dataset,
            "context": context,
            "QA_list": pairs,
            "n_pairs": len(pairs),
            "license": license,
            "uri": record.record_id,
        },
    )


def _instruction(record: Record, source: str, license: str | None) -> _Row:
    """Question and response; a system prompt, where there is one, is left out (arXiv 2406.14491)."""
    if "conversations" in record.fields:
        question, response = _question_and_reply(record.fields["conversations"])
    else:
        question, response = record.fields.get("question"), record.fields.get("response")
    if not (_is_text(question) and _is_text(response)):
        detail = "'question' and 'response', or the turns of 'conversations', must be strings that are not blank"
        return _rejected(record, "invalid_record", detail)
    return "instructions", {
        "instruction_id": identifier(question, response),
        "source": source,
        "question": question,
        "response": response,
        "license": license,
        "uri": record.record_id,
    }


def _conversation(record: Record, dataset: str, license: str | None) -> _Row:
    try:
        messages = messages_of(record.fields)
    except NotAConversation as error:
        return _rejected(record, "invalid_record", str(error))
    name = record.fields.get("id")
    return "conversations", {
        "conversation_id": identifier(
            dataset, *(part for turn in messages for part in (turn["role"], turn["content"]))
        ),
        "dataset": dataset,
        "record": None if name is None else str(name),
        "messages": messages,
        "license": license,
        "uri": record.record_id,
    }


def _question_and_reply(turns: Any) -> tuple[str | None, str | None]:
    """The last reply of a conversation, and all before it as its question, turns joined by one space.

    Turns are strings (LIMA), or ``{"from", "value"}`` (WizardLM and others), where those from ``system`` are dropped.
    Every other turn is learned from in pre-training, so none is left out. None where speakers do not alternate.
    """
    if not isinstance(turns, list):
        return None, None
    if all(isinstance(turn, dict) for turn in turns):
        turns = [turn for turn in turns if turn.get("from") != "system"]
        speakers = [turn.get("from") in ("human", "user") for turn in turns]
        turns = [turn.get("value") for turn in turns]
    else:
        speakers = [number % 2 == 0 for number in range(len(turns))]
    alternate = speakers == [number % 2 == 0 for number in range(len(turns))]
    if len(turns) < 2 or len(turns) % 2 or not alternate or not all(map(_is_text, turns)):
        return None, None
    return " ".join(turns[:-1]), turns[-1]


def _rejected(record: Record, reason: str, detail: str) -> _Row:
    return "rejects", reject(STAGE, record.record_id, reason, detail, as_json(record.fields))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
