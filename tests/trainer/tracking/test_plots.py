"""Plots of a history."""

from pathlib import Path

import pytest

from trainer.tracking.plots import draw, smoothed


def test_a_history_is_drawn(tmp_path: Path) -> None:
    lines = [
        {"tokens": step * 100, "loss": 5.0 / step, "learning_rate": 0.1, "grad_norm": 1.0, "step_seconds": 0.5}
        for step in range(1, 30)
    ]
    lines[3]["loss"] = None
    draw(lines, tmp_path / "a.png")
    draw([], tmp_path / "b.png")
    sizes = [(tmp_path / name).stat().st_size for name in ("a.png", "b.png")]
    assert sizes[0] > sizes[1] > 1000


def test_the_smoothed_line_starts_at_the_first_value_and_forgets_it() -> None:
    line = smoothed([4.0] + [2.0] * 60)
    assert line[0] == pytest.approx(4.0)
    assert line[-1] == pytest.approx(2.0, abs=0.01)
