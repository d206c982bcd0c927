"""Tables of the page on two cores, from its rows; and a row more, from a run directory.

    python benchmarks/two_cores.py
    python benchmarks/two_cores.py --add runs/demo --note "a quiet machine"

The text of docs/results/two-cores.md is written by hand. Below each heading that rows name, its first table is made of
these rows, in their order.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import DATA, Row, table
from frossl.runs.log import read_rows
from frossl.runs.record import read_record

PAGE = Path("docs/results/two-cores.md")
SECTIONS = {"fashion-mnist-cpu": "Fashion-MNIST, 5.5 minutes", "cifar10-cpu": "CIFAR-10, 10 minutes"}
COLUMNS = {"knn": "kNN", "linear": "linear", "linear_10": "10 labels"}
CONTROLS = ("untrained", "raw pixels")


def row_of(run: Path, note: str) -> Row:
    """The row of a run of one of the recipes; gains are points over the better control."""
    record = read_record(run)
    assert record.evaluation is not None
    arms = record.evaluation.arms
    trained, controls = arms["pretrained"], [arms[name] for name in CONTROLS]
    row: Row = {"section": SECTIONS[record.config["recipe"]], "run": note, "steps": f"{record.end['step']:,}"}
    for name, title in COLUMNS.items():
        deviation = f" ± {trained[f'{name}_std']:.3f}" if f"{name}_std" in trained else ""
        row[title] = f"{trained[name]:.3f}{deviation}"
    gains = (100 * (trained[name] - max(arm[name] for arm in controls)) for name in COLUMNS)
    return row | {"gains": ", ".join(f"{gain:+.1f}" for gain in gains)}


def with_tables(page: str, rows: list[Row]) -> str:
    """``page`` with the first table below each heading that ``rows`` name made of these."""
    for section in dict.fromkeys(row["section"] for row in rows):
        own = [row for row in rows if row["section"] == section]
        columns = [name for name in dict.fromkeys(name for row in own for name in row) if name != "section"]
        before, heading, after = page.partition(f"# {section}\n")
        start = after.index("\n|") + 1
        end = after.index("\n\n", start)
        made = table(columns, [[row.get(name, "") for name in columns] for row in own])
        page = before + heading + after[:start] + made + after[end:]
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--add", type=Path, metavar="RUN", help="directory of a run of one of the recipes")
    parser.add_argument("--note", default="", help="what is to be said of that run")
    parser.add_argument("--rows", type=Path, default=DATA / "two-cores.jsonl")
    args = parser.parse_args()
    rows = read_rows(args.rows)
    if args.add:
        own = row_of(args.add, args.note)
        last = max((i for i, row in enumerate(rows) if row["section"] == own["section"]), default=len(rows) - 1)
        rows.insert(last + 1, own)
        args.rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    PAGE.write_text(with_tables(PAGE.read_text(), rows))


if __name__ == "__main__":
    main()
