"""Objectives: which tokens are learned, and how much each counts.

An objective is a table from a token's role (``udfs.shards.format.ROLES``) to a weight. The weight of a position is that
of the token it *predicts*, so the last token of a document, which predicts nothing, has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

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


@dataclass(frozen=True)
class Groups:
    """What the loss is told apart by: the source of a token and, in sets that have roles, its role.

    Attributes:
        sources: names of the mixture's sources, in order.
    """

    sources: tuple[str, ...]

    # One for sets without roles, and one for each role.
    PER_SOURCE: ClassVar[int] = 1 + len(ROLES)

    def __len__(self) -> int:
        return len(self.sources) * self.PER_SOURCE

    @classmethod
    def number(cls, source: int, roles: np.ndarray | None) -> np.ndarray | int:
        """Group of each token of that source; without roles, one group for all of them."""
        return source * cls.PER_SOURCE + (0 if roles is None else 1 + roles.astype(np.int64))

    def means(self, sums: np.ndarray, counts: np.ndarray) -> dict[str, float]:
        """``loss/source/<name>`` and ``loss/role/<name>``: mean cross-entropy, in nats, where anything was learned.

        Args:
            sums: [groups] summed cross-entropy, without weights.
            counts: [groups] how many tokens it is summed over.
        """
        shape = (len(self.sources), self.PER_SOURCE)
        total, count = sums.reshape(shape), counts.reshape(shape)
        parts = [(f"source/{name}", total[index], count[index]) for index, name in enumerate(self.sources)]
        parts += [(f"role/{name}", total[:, 1 + index], count[:, 1 + index]) for index, name in enumerate(ROLES)]
        return {f"loss/{name}": float(part.sum() / number.sum()) for name, part, number in parts if number.any()}
