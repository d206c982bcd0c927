"""Pages of results are what their rows make."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {"report_time": "report"}
"""Pages that are not called like their benchmark."""
BY_TABLE = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def show(" in path.read_text())
NOT_YET = {"cause", "gpu", "telemetry", "view_scaling"}
"""Without rows yet, or without ``--table``: finished rows are not measured again there."""


@pytest.mark.parametrize("name", sorted({*BY_TABLE} - NOT_YET))
def test_a_page_of_results_is_what_its_rows_make(name, tmp_path, monkeypatch, capsys):
    source = (ROOT / "benchmarks" / f"{name}.py").read_text()
    title = PAGES.get(name, name).replace("_", "-")
    drawn = {"plot": tmp_path / f"{title}.svg", "plots": tmp_path}  # beside the committed ones, which stay
    plots = [x for flag, path in drawn.items() if f'"--{flag}"' in source for x in (f"--{flag}", str(path))]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--table", *plots])
    runpy.run_path(f"benchmarks/{name}.py", run_name="__main__")
    page = capsys.readouterr().out
    assert page.strip().splitlines() == (ROOT / "docs/results" / f"{title}.md").read_text().strip().splitlines()


def test_tables_of_the_page_on_two_cores_are_what_their_rows_make():
    two_cores = pytest.importorskip("two_cores", reason="benchmarks/ is in the repository only")
    page = (ROOT / two_cores.PAGE).read_text()
    assert two_cores.with_tables(page, two_cores.read_rows(ROOT / "docs/results/data/two-cores.jsonl")) == page
