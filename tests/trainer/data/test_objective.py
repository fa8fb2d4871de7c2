"""Objectives: weights by role."""

import numpy as np
import pytest

from trainer.data.objective import OBJECTIVES, Groups, check_weights, role_weights


def test_named_objectives() -> None:
    # template, context, instruction, response
    assert role_weights("pretrain").tolist() == [1, 1, 1, 1]
    assert role_weights("synthesizer").tolist() == [1, 0, 1, 1]
    assert role_weights("instruction_tuning").tolist() == [0, 0, 0, 1]
    assert role_weights("instruction_modelling").tolist() == [0, 0, 1, 1]
    for table in OBJECTIVES.values():
        check_weights(table)


def test_a_table_may_be_fractional_and_leaves_the_rest_out() -> None:
    assert role_weights({"response": 1.0, "instruction": 0.25}).tolist() == [0, 0, 0.25, 1]


@pytest.mark.parametrize(
    ("table", "said"),
    [({"answer": 1.0}, "unknown role"), ({"response": -1.0}, "negative"), ({"response": 0.0}, "at least one")],
)
def test_wrong_tables_are_refused(table: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_weights(table)


def test_losses_by_source_and_role() -> None:
    groups = Groups(("web", "tuning"))
    sums, counts = np.zeros(len(groups)), np.zeros(len(groups))
    for source, roles, losses in ((0, None, [2.0, 4.0]), (1, [1, 3, 3], [1.0, 0.5, 1.5])):
        numbers = np.broadcast_to(groups.number(source, roles if roles is None else np.array(roles)), len(losses))
        np.add.at(sums, numbers, losses)
        np.add.at(counts, numbers, 1)
    assert groups.means(sums, counts) == {
        "loss/source/web": 3.0,
        "loss/source/tuning": 1.0,
        "loss/role/context": 1.0,
        "loss/role/response": 1.0,
    }
