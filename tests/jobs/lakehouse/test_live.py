"""Progress reports: at intervals, whatever happens to one of them."""

import logging
import threading
from pathlib import Path

import pytest

from jobs.lakehouse import live as module
from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.live import Live
from udfs.config import Config


class Steps:
    """Counts how often it was asked; the second time fails, as a file that cannot be read would."""

    def __init__(self) -> None:
        self.asked = 0
        self.reported = threading.Event()
        self.committed: list[bool] = []

    def commit(self, staged) -> None:
        self.committed.append(staged)

    def metrics(self) -> dict[str, float]:
        self.asked += 1
        if self.asked == 2:
            raise OSError("the store is gone")
        if self.asked == 4:
            self.reported.set()
        return {"progress/documents": self.asked}

    def line(self, metrics: dict[str, float]) -> str:
        return f"{metrics['progress/documents']} documents"


def test_reports_go_on_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "LOG_SECONDS", 0.01)
    logged: list[tuple[dict[str, float], int]] = []
    job = Job(Lakehouse(LakehouseConfig(root=str(tmp_path)), lambda: None), "synthesize", Config(), lambda: None)
    job.log = lambda metrics, seconds: logged.append((metrics, seconds))
    meter = Steps()
    with caplog.at_level(logging.INFO), Live(meter, job) as live:
        assert meter.reported.wait(60)
        removed: list[bool] = []
        live.commit("staged", lambda: removed.append(bool(meter.committed)))
    assert removed == [True], "what is removed has been counted"
    after = meter.asked
    assert live.report() == {"progress/documents": after + 1}
    assert [metrics["progress/documents"] for metrics, _ in logged] == [1, *range(3, after + 2)]
    assert "could not be reported" in caplog.text and "synthesize: 3 documents" in caplog.text
