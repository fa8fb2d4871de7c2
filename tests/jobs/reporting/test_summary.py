import io
from dataclasses import replace

from rich.console import Console

from jobs.reporting.data import ReportData
from jobs.reporting.page import render
from jobs.reporting.summary import ABSENT, summarise
from jobs.reporting.terminal import show
from tests.jobs.reporting.samples import full_report


def test_lines_hold_the_numbers() -> None:
    lines = {(line.group, line.label): line for line in summarise(full_report())}
    assert lines["Synthesis", "pairs"].value == "12"
    assert lines["Synthesis", "well-formed pairs"].interval == "80.0 to 95.0"
    assert lines["Tokens in shards", "raw"].value == "2,000"
    assert lines["Training loss at the end", "instruct"].value == "5.180"
    vanilla = lines["Held-out accuracy", "vanilla"]
    assert (vanilla.value, vanilla.interval, vanilla.note) == ("0.0%", "0.0 to 10.0", "exact match 0.0%")
    difference = lines["Held-out accuracy", "instruct - vanilla"]
    assert (difference.value, difference.interval) == ("+70.0 pt", "+60.0 to +80.0")
    assert ("Held-out accuracy", "chance") not in lines


def test_each_task_is_shown_with_its_own_numbers() -> None:
    report = full_report()
    others = [replace(score, task="law", value=score.value / 2) for score in report.scores or ()]
    report = replace(report, scores=[*(report.scores or ()), *others])
    lines = {(line.group, line.label): line.value for line in summarise(report)}
    assert lines["Held-out accuracy, facts", "instruct"] == "70.0%"
    assert lines["Held-out accuracy, law", "instruct"] == "35.0%"
    assert lines["Held-out accuracy, law", "instruct - vanilla"] == "+35.0 pt"
    page = render(report, "Two tasks", "today", {})
    for caption in ("Accuracy by likelihood over the options", "Exact match of free generation"):
        assert f"{caption}, facts</figcaption>" in page and f"{caption}, law</figcaption>" in page
    assert "<b>35.0%</b><span>instruct, law</span>" in page


def test_empty_report_says_what_is_absent() -> None:
    assert {line.value for line in summarise(ReportData())} == {ABSENT}


def test_terminal_prints_commands_that_can_be_copied() -> None:
    console = Console(file=io.StringIO(), width=60)
    command = "mlflow ui --backend-store-uri sqlite:////a/rather/long/path/that/does/not/fit/mlflow.db"
    show(console, summarise(full_report()), {"To see [the] runs:": command})
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert command in text
    assert "To see [the] runs:" in text
    assert text.count("Held-out accuracy") == 1
