import io

from rich.console import Console

from jobs.lakehouse.progress import Progress


def test_what_a_step_says_is_no_markup() -> None:
    progress = Progress()
    progress.console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200, highlight=False)
    progress.step("evaluate", "scoring [/x] and [bold]y[/bold]: answering facts [0].jsonl")
    assert progress.console.file.getvalue().endswith("scoring [/x] and [bold]y[/bold]: answering facts [0].jsonl\n")  # type: ignore[attr-defined]
