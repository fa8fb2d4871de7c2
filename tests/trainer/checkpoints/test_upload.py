"""Checkpoints in a folder elsewhere."""

import logging
from functools import partial
from pathlib import Path

import fsspec
import pytest

from trainer.checkpoints.checkpoints import retained
from trainer.checkpoints.upload import Remote
from trainer.config import resolve
from udfs.errors import ConfigError, EnvironmentProblem

MARKER = "COMPLETE"


def _checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"step-{step:08d}"
    (path / "zero").mkdir(parents=True)
    (path / "zero" / "state.pt").write_bytes(bytes([step]) * 1000)
    (path / MARKER).write_text(str(step))
    return path


def test_sent_kept_and_fetched(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'there'}"
    remote = Remote(url, MARKER)
    assert remote.names() == []
    for step in (5, 10, 15):
        remote.send(_checkpoint(tmp_path / "here", step), lambda names: {"step-00000005"})
    remote.finish()
    assert remote.busy() == set()
    assert remote.names() == ["step-00000005", "step-00000015"]
    assert not (tmp_path / "there" / "step-00000010").exists()

    # One that was cut short on its way up is not there.
    (tmp_path / "there" / "step-00000020").mkdir()
    other = Remote(url, MARKER)
    assert other.names()[-1] == "step-00000015"
    other.fetch("step-00000015", tmp_path / "new")
    sent, fetched = tmp_path / "here" / "step-00000015", tmp_path / "new" / "step-00000015"
    for path in ("zero/state.pt", MARKER):
        assert (fetched / path).read_bytes() == (sent / path).read_bytes()


def test_a_machine_that_has_only_the_newest_leaves_the_kept_ones_there(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'there'}"
    keep = partial(retained, keep_last=1, keep_every=10)
    for place, steps in [("lost", (10, 15, 20, 25)), ("new", (30, 35))]:
        remote = Remote(url, MARKER)
        for step in steps:
            remote.send(_checkpoint(tmp_path / place, step), keep)
        remote.finish()
    assert remote.names() == [f"step-{step:08d}" for step in (10, 20, 30, 35)]


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    remote = Remote(f"file://{tmp_path}/file/below", MARKER)
    with caplog.at_level(logging.WARNING, logger="trainer"):
        remote.send(_checkpoint(tmp_path / "here", 1), set)
        remote.finish()
    assert "was not copied" in caplog.text


@pytest.mark.parametrize("kind", ["nowhere", "ipt-missing"])
def test_a_kind_of_place_that_cannot_be_opened_is_told_at_once(kind: str) -> None:
    # As fsspec knows those whose package is not installed.
    fsspec.register_implementation("ipt-missing", "ipt_missing.Files", errtxt="Install it", clobber=True)
    with pytest.raises(ConfigError, match=f"no file system is known for {kind}://"):
        resolve("tiny", ["data.sources.raw.path=x", "output_dir=x", f"checkpoints.upload={kind}://bucket"])


def test_a_place_that_does_not_answer_is_told_before_the_training(closed_port: int) -> None:
    with pytest.raises(EnvironmentProblem, match="does not answer"):
        Remote(f"http://127.0.0.1:{closed_port}/there", MARKER).names()
    with pytest.raises(EnvironmentProblem, match="does not answer"):
        Remote(f"ftp://127.0.0.1:{closed_port}/there", MARKER)
