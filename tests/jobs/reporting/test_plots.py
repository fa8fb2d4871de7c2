import io

import numpy as np
import pytest

from jobs.reporting import plots
from jobs.reporting.data import LossCurve, StepTime
from tests.jobs.reporting.samples import full_report


def _size(png: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        image.verify()
        return image.size


def test_every_plot_is_a_picture_of_the_page_s_width() -> None:
    data = full_report()
    colour = plots.colours(["vanilla", "instruct"])
    pictures = [
        plots.bars({"a": 1, "b": 2}),
        plots.step_times([StepTime("a", "ingest", 1.0, 3), StepTime("b", "sample", 0.0, 0)]),
        plots.histogram({3: 1, 900: 2}, "tokens"),
        plots.loss_curves(data.curves, colour),
        plots.accuracy(data, "acc", colour),
    ]
    assert {_size(picture)[0] for picture in pictures} == {round(plots.WIDTH * plots.DPI)}


def test_bars_grow_with_their_number() -> None:
    few, many = (_size(plots.bars({str(index): index for index in range(number)})) for number in (2, 20))
    assert many[1] > 2 * few[1]


def test_bars_of_names_that_begin_alike_lie_apart() -> None:
    def bars(*names: str) -> int:
        """Stretches of the colour in the column where most of it is."""
        from PIL import Image

        with Image.open(io.BytesIO(plots.bars(dict.fromkeys(names, 5), "#ff0000"))) as picture:
            red = (np.asarray(picture.convert("RGB")) == (255, 0, 0)).all(axis=2)
        column = red[:, red.sum(axis=0).argmax()]
        return int((column[1:] & ~column[:-1]).sum())

    assert bars("short", "other") == bars("a" * 40 + "1", "a" * 40 + "2") == 2


def test_a_plot_is_the_same_every_time() -> None:
    assert plots.bars({"a": 1}) == plots.bars({"a": 1})


def test_moving_mean_starts_at_the_first_value_and_ends_at_the_mean_of_the_window() -> None:
    smooth = plots._smooth([float(value) for value in range(100)])
    assert smooth[0] == 0
    assert smooth[-1] == pytest.approx((98 + 99) / 2)


def test_colours_stay_with_the_names() -> None:
    assert plots.colours(["a", "b", "a"]) == {"a": plots.COLOURS[0], "b": plots.COLOURS[1]}


def test_final_loss_is_the_mean_of_the_last_tenth() -> None:
    assert LossCurve([1.0] * 20, [9.0] * 18 + [1.0, 2.0], 0.0).final == 1.5
    assert LossCurve([1.0], [4.0], 0.0).final == 4.0
