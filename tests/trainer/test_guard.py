"""Spikes are found, drifts are not, and too many skipped steps end the training."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.guard import SPIKE, Diverged, Guard, GuardConfig

CONFIG = GuardConfig(sigmas=6.0, window=8, max_skipped=2)
LOSSES = [2.0, 2.1, 1.9, 2.0, 2.2, 1.8, 2.0, 2.0]


def test_the_limit_is_six_sigma_of_a_full_window() -> None:
    guard = Guard(CONFIG)
    for loss in LOSSES:
        assert guard.limit == math.inf
        guard.applied(loss)
    spread = math.sqrt(sum((loss - 2.0) ** 2 for loss in LOSSES) / 7)
    assert guard.limit == pytest.approx(2.0 + 6 * spread)
    assert Guard(GuardConfig(sigmas=None, window=8), LOSSES).limit == math.inf


def test_equal_losses_leave_room_for_rounding() -> None:
    assert Guard(CONFIG, [0.3] * 8).limit > 0.3 * (1 + 1e-6)


@given(st.lists(st.floats(0, 20), min_size=8, max_size=30), st.integers(0, 29))
def test_resumed_anywhere_it_has_the_same_limit(losses: list[float], cut: int) -> None:
    whole = Guard(CONFIG)
    for loss in losses:
        whole.applied(loss)
    begun = Guard(CONFIG)
    for loss in losses[:cut]:
        begun.applied(loss)
    resumed = Guard(CONFIG, *begun.state())
    for loss in losses[cut:]:
        resumed.applied(loss)
    assert resumed.limit == whole.limit


def test_too_many_skipped_steps_in_a_window_stop_the_training() -> None:
    guard = Guard(CONFIG, LOSSES)
    guard.skipped(10, SPIKE, 9.0, 80)
    guard.skipped(14, SPIKE, 9.0, 112)
    with pytest.raises(Diverged, match=r"3 of the last 8 steps .* step 17 \(spike, loss 9.5\).* position 136"):
        Guard(CONFIG, *guard.state()).skipped(17, SPIKE, 9.5, 136)


def test_skipped_steps_far_apart_are_borne() -> None:
    guard = Guard(CONFIG, LOSSES)
    for step in range(10, 100, 4):
        guard.skipped(step, SPIKE, 9.0, step * 8)


def test_none_allowed() -> None:
    with pytest.raises(Diverged):
        Guard(GuardConfig(max_skipped=0), LOSSES).skipped(1, SPIKE, 9.0, 0)
