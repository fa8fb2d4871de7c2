"""Objectives: which tokens are learned, and how much each counts.

An objective is a table from a token's role (``udfs.shards.format.ROLES``) to a weight. The weight of a position is that
of the token it *predicts*, so the last token of a document, which predicts nothing, has none.
"""

from collections.abc import Mapping

import numpy as np

from udfs.shards.format import ROLES

OBJECTIVES: dict[str, dict[str, float]] = {
    # Every token.
    "pretrain": {"template": 1.0, "context": 1.0, "instruction": 1.0, "response": 1.0},
    # The pairs with their markers and the end token, given the text (Instruction Pre-Training, section 2.1).
    "synthesizer": {"template": 1.0, "context": 0.0, "instruction": 1.0, "response": 1.0},
    # The response, given everything before it.
    "instruction_tuning": {"template": 0.0, "context": 0.0, "instruction": 0.0, "response": 1.0},
    # Instruction and response without the template (Instruction Modelling, arXiv 2405.14394, section 3).
    "instruction_modelling": {"template": 0.0, "context": 0.0, "instruction": 1.0, "response": 1.0},
}


def check_weights(weights: Mapping[str, float]) -> None:
    """Whether ``weights`` is an objective.

    Raises:
        ValueError: an unknown role, a negative weight, or nothing to learn.
    """
    unknown = set(weights) - set(ROLES)
    if unknown:
        raise ValueError(f"unknown role {', '.join(sorted(unknown))}; roles are {', '.join(ROLES)}")
    if min(weights.values(), default=0.0) < 0:
        raise ValueError("a weight must not be negative")
    if not any(weights.values()):
        raise ValueError("at least one role must have a weight above 0")


def role_weights(objective: str | Mapping[str, float]) -> np.ndarray:
    """[roles] float32 weight of each role, in the order of ``ROLES``; roles left out of a table have 0."""
    table = OBJECTIVES[objective] if isinstance(objective, str) else objective
    return np.array([table.get(role, 0.0) for role in ROLES], np.float32)
