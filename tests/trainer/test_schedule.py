"""Learning rates at the corners of a schedule."""

import pytest

from trainer.schedule import Schedule


def test_cosine() -> None:
    schedule = Schedule("cosine", 1.0, warmup=10, steps=110, final_ratio=0.1)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(9) == schedule(10) == pytest.approx(1.0)
    assert schedule(109) == pytest.approx(0.1)
    middle = 10 + 99 / 2
    assert (schedule(int(middle)) + schedule(int(middle) + 1)) / 2 == pytest.approx(0.55, abs=1e-3)
    assert all(schedule(step) >= schedule(step + 1) for step in range(10, 109))


def test_linear_and_constant() -> None:
    linear = Schedule("linear", 2.0, warmup=0, steps=11, final_ratio=0.0)
    assert [linear(0), linear(5), linear(10)] == pytest.approx([2.0, 1.0, 0.0])
    assert Schedule("constant", 2.0, warmup=2, steps=10, final_ratio=0.0)(9) == 2.0


def test_a_single_step() -> None:
    assert Schedule("cosine", 1.0, warmup=0, steps=1, final_ratio=0.1)(0) == pytest.approx(1.0)


def test_wsd() -> None:
    schedule = Schedule("wsd", 1.0, warmup=10, steps=100, final_ratio=0.1, decay=16)
    assert schedule(4) == pytest.approx(0.5)
    assert schedule(10) == schedule(83) == 1.0
    # A quarter of the way down the root is at a half.
    assert schedule(87) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule(99) == pytest.approx(0.1)
