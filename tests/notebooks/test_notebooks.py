import ast
import os
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.py"))
SEPARATOR = "\n\n# COMMAND ----------\n\n"


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def source(request: pytest.FixtureRequest) -> str:
    text: str = request.param.read_text(encoding="utf-8")
    return text


def test_first_line_makes_it_a_notebook(source: str) -> None:
    assert source.startswith("# Databricks notebook source\n")


def test_cells_are_either_markdown_or_python(source: str) -> None:
    cells = source.removeprefix("# Databricks notebook source\n").split(SEPARATOR)
    assert source.count("COMMAND ----------") == len(cells) - 1
    for cell in cells:
        lines = cell.strip().splitlines()
        assert lines
        if lines[0].startswith("# MAGIC"):
            assert lines[0] == "# MAGIC %md"
            assert all(line.startswith("# MAGIC") for line in lines)
        else:
            assert "# MAGIC" not in cell
            compile(cell, "cell", "exec")


def test_it_defines_nothing(source: str) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def test_its_imports_are_there(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.module is not None
            module = __import__(node.module, fromlist=[alias.name for alias in node.names])
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize(("runtime", "pipeline"), [(None, "demo"), ("18.0", "databricks")])
def test_it_shows_what_ran_there(
    source: str, runtime: str | None, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtime is not None:
        monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", runtime)
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    [name] = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "load_pipeline"]
    assert eval(compile(ast.Expression(name), "name", "eval"), {"os": os}) == pipeline


def test_its_tables_and_columns_are_there(source: str) -> None:
    from jobs.lakehouse.tables import PROVENANCE, TABLES

    columns = {column.name for table in TABLES.values() for column in (*table.columns, *PROVENANCE)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "read":
            assert isinstance(node.args[0], ast.Constant)
            assert node.args[0].value in TABLES
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
        ):
            assert node.slice.value in columns | {"instruction", "response"}
