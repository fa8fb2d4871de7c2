"""The summary on a terminal."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.reporting.summary import Line


def show(console: Console, lines: Sequence[Line], commands: Mapping[str, str]) -> None:
    """Print the summary as one table, and under it where to go on."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95% interval, %", justify="right", no_wrap=True)
    table.add_column("")
    group = None
    for line in lines:
        if line.group != group:
            if group is not None:
                table.add_row()
            table.add_row(Text(line.group, style="bold cyan"))
            group = line.group
        table.add_row(Text(f"  {line.label}"), Text(line.value), Text(line.interval), Text(line.note, style="dim"))
    console.print(table)
    console.print()
    for label, command in commands.items():
        console.print(Text(label, style="dim"))
        # A command that is wrapped cannot be copied.
        console.print(Text(f"  {command}"), soft_wrap=True)
