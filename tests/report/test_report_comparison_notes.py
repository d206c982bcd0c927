"""What a comparison says of controls, seeds that not all arms have, slow runs, and the images it was measured on."""

import json
from pathlib import Path

import pytest
from comparison_runs import write_plan, write_run

from frossl.report.comparison import as_markdown, beside_controls, conclude, render_comparison, write_comparison
from frossl.report.comparison_notes import left_out
from frossl.report.comparison_tables import tables
from frossl.report.controls import not_above
from frossl.report.study import BudgetResult, read_study


def result_of(out: Path, accuracies: dict[str, list[float]], budget: str = "2ep") -> BudgetResult:
    """Of runs with raw pixels at 0.3 by both scores, and an untrained encoder at 0.25 by the linear probe."""
    runs = [write_run(out, arm, seed, x, budget) for arm, xs in accuracies.items() for seed, x in enumerate(xs)]
    (result,) = read_study(write_plan(out, runs)).results
    return result


def slow(out: Path, run: str, factor: float) -> None:
    path = out / run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"seconds": factor * row["seconds"]}) + "\n" for row in rows))


def row_of(result: BudgetResult, arm: str) -> list[str]:
    return next([c.value for c in cells] for name, *cells in tables(result)[0].rows if name.value == arm)


def test_arms_within_the_margin_of_a_control_are_named(tmp_path):
    result = result_of(tmp_path, {"a": [0.50, 0.51], "b": [0.36, 0.37], "c": [0.28, 0.29]})
    assert not_above(result.arms, "linear", "raw pixels") == ["b", "c"]  # b by 6.5 points, with 500 images
    assert not_above(result.arms, "linear", "untrained") == ["c"]
    assert not_above(result.arms, "linear", "start") is None  # there is none
    (said,) = beside_controls(result, "linear")
    assert "c is not clearly above the untrained encoder (0.250)" in said
    assert "b and c are not clearly above raw pixels (0.300)" in said
    write_comparison(tmp_path)
    for name in ("comparison.md", "comparison.html"):
        assert said in (tmp_path / name).read_text()


def test_controls_that_all_or_none_are_above_are_named_once(tmp_path):
    (tmp_path / "above").mkdir()
    above = result_of(tmp_path / "above", {"a": [0.50, 0.51], "b": [0.60, 0.61]})
    (said,) = beside_controls(above, "linear")
    assert "every ranked arm is clearly above the untrained encoder (0.250) and raw pixels (0.300)" in said
    (tmp_path / "below").mkdir()
    below = result_of(tmp_path / "below", {"a": [0.28], "b": [0.29]})
    assert "no arm is clearly above raw pixels (0.300)" in beside_controls(below, "linear")[0]


def test_a_spread_over_seeds_counts_beside_a_control(tmp_path):
    even, uneven = tmp_path / "even", tmp_path / "uneven"
    even.mkdir()
    uneven.mkdir()
    assert not_above(result_of(even, {"a": [0.49, 0.5], "b": [0.5, 0.51]}).arms, "linear", "raw pixels") == []
    found = not_above(result_of(uneven, {"a": [0.3, 0.7], "b": [0.7, 0.3]}).arms, "linear", "raw pixels")
    assert sorted(found or []) == ["a", "b"]


def test_seeds_that_not_all_arms_have_are_left_out_of_what_is_compared(tmp_path):
    result = result_of(tmp_path, {"a": [0.50, 0.40, 0.40], "b": [0.46]})
    said = conclude(result, "linear")
    assert "one seed that all arms have (0)" in said
    assert "a, 4.0 points above" in said
    assert row_of(result, "a") == ["0.500", "", "0.480", "", "3"]  # of seed 0
    assert row_of(result, "b")[:2] == ["0.460", "4.0 (± 6.2 over images)"]
    (note,) = left_out(result)
    assert "(0)" in note
    assert "a with 1 and 2" in note


def test_seeds_that_all_arms_have_need_no_words(tmp_path):
    result = result_of(tmp_path, {"a": [0.50], "b": [0.46]})
    assert conclude(result, "linear").startswith("With one seed")
    assert left_out(result) == []


def test_an_arm_that_is_not_ranked_shows_all_its_seeds(tmp_path):
    runs = [write_run(tmp_path, arm, seed, x) for arm, seed, x in (("a", 0, 0.5), ("b", 0, 0.4), ("b", 1, 0.6))]
    (tmp_path / "b-2ep-seed2").mkdir()
    (tmp_path / "b-2ep-seed2/outcome.json").write_text(json.dumps({"state": "diverged", "message": ""}))
    runs.append({"name": "b-2ep-seed2", "arm": "b", "budget": "2ep", "seed": 2, "config": {}})
    (result,) = read_study(write_plan(tmp_path, runs)).results
    assert row_of(result, "b")[0] == "0.500"


@pytest.mark.parametrize(("budget", "lines"), [("1min", 2), ("2ep", 1)])
def test_slow_runs_are_told_in_a_line_for_each_arm_or_one_where_time_is_not_compared(tmp_path, budget, lines):
    result_of(tmp_path, {arm: [0.5, 0.5] for arm in "abc"}, budget)
    slow(tmp_path, f"b-{budget}-seed1", 1.5)
    slow(tmp_path, f"c-{budget}-seed0", 2.0)
    (result,) = read_study(tmp_path).results
    assert {arm.arm: arm.off_pace for arm in result.arms if arm.off_pace} == {
        "b": [(0, -0.33), (1, 0.5)],
        "c": [(0, 1.0), (1, -0.5)],
    }
    notes = left_out(result)
    assert len(notes) == lines
    assert all(arm in " ".join(notes) for arm in "bc")
    assert ("50 % more time with seed 1" in notes[0]) == (budget == "1min")
    steps = {name.value: cells[4].value for name, *cells in tables(result)[1].rows}
    assert steps["b"] == "2,500, seed 0 −33 %, seed 1 +50 %"


def test_what_was_measured_on_training_images_is_not_said_to_be_held_out(tmp_path):
    result_of(tmp_path, {"a": [0.5], "b": [0.4]})
    for validation in (False, True):
        plan = json.loads((tmp_path / "comparison.json").read_text())
        for run in plan["runs"]:
            run["validation"] = validation
        (tmp_path / "comparison.json").write_text(json.dumps(plan))
        study = read_study(tmp_path)
        assert ("held-out images" in as_markdown(study)) != validation
        assert ("500 training images kept aside" in render_comparison(study)) == validation
