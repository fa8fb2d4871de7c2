"""Records of chat data in the shapes of the Instruction Modelling sets, as rows of ``conversations``.

A record is ``{"dataset", "id", "messages": [{"role", "content"}, ...]}`` with the roles system, user and assistant, or
``{"prompt", "completion"}`` (arXiv 2405.14394, code; the shapes of open-instruct).
"""

from collections.abc import Mapping
from typing import Any

from udfs.templates.chat import COMPLETION, PROMPT, ROLES


class NotAConversation(ValueError):
    """The record has no usable conversation; the message says why."""


def messages_of(fields: Mapping[str, Any]) -> list[dict[str, str]]:
    """The turns of a record, each with ``role`` and ``content``; a prompt and its completion are two turns.

    Raises:
        NotAConversation: neither shape, an unknown role, a blank turn, or nothing that answers.
    """
    if "messages" in fields:
        listed = fields["messages"]
        if not isinstance(listed, list) or not all(isinstance(turn, Mapping) for turn in listed):
            raise NotAConversation("'messages' must be a list of objects")
        turns = [(turn.get("role"), turn.get("content")) for turn in listed]
    elif PROMPT in fields and COMPLETION in fields:
        turns = [(PROMPT, fields[PROMPT]), (COMPLETION, fields[COMPLETION])]
    else:
        raise NotAConversation(f"there is neither 'messages' nor '{PROMPT}' with '{COMPLETION}'")
    for number, (role, content) in enumerate(turns):
        if role not in (*ROLES, PROMPT, COMPLETION):
            raise NotAConversation(f"turn {number} has the role {role!r}; it must be one of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            raise NotAConversation(f"the content of turn {number} must be a string that is not blank")
    if not any(role in ("assistant", COMPLETION) for role, _ in turns):
        raise NotAConversation("no turn answers: there is nothing to learn")
    return [{"role": role, "content": content} for role, content in turns]
