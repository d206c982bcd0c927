"""Scores that are no plain accuracies, in comparisons, tables and charts."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from comparison_runs import write_plan, write_run
from rich.console import Console

from frossl.evals.suite import Evaluation
from frossl.report.arms import Arm, arms_of, evaluation_table
from frossl.report.comparison import as_markdown, conclude, render_comparison
from frossl.report.comparison_tables import in_order
from frossl.report.figures import accuracy_figure
from frossl.report.study import read_study
from frossl.report.terminal import show_evaluation
from frossl.report.verdict import glossary, judge
from frossl.runs.record import read_record


def compared(tmp_path, targets: str, guess: str, values) -> object:
    """A comparison of two arms whose evaluations hold what ``values`` makes of how good an arm is."""
    runs = []
    for arm, good in (("a", 0.6), ("b", 0.3)):
        for seed in range(2):
            runs.append(write_run(tmp_path, arm, seed, good))
            path = tmp_path / runs[-1]["name"] / "evaluation.json"
            saved = json.loads(path.read_text())
            arms = {"pretrained": good + 0.01 * seed, "untrained": 0.1, "raw pixels": 0.2, guess: 0.0}
            saved["things"] |= {"targets": targets, "arms": {name: values(good) for name, good in arms.items()}}
            path.write_text(json.dumps(saved))
    return read_study(write_plan(tmp_path, runs))


def test_arms_are_ranked_by_r2_beside_the_controls_and_the_mean(tmp_path):
    def values(good: float) -> dict[str, float]:
        return {"r2": good, "r2_low": good - 0.02, "r2_high": good + 0.02, "mae": 1 - good}

    study = compared(tmp_path, "values", "training mean", values)
    (result,) = study.results
    assert result.measure == "r2"
    assert [arm.arm for arm in in_order(result)] == ["a", "b"]
    assert conclude(result, "r2").startswith("By R² of a ridge regression, a is ahead")
    text = as_markdown(study)
    assert "### Score" in text
    assert "| guess | 0.000 |" in text
    assert '"text":"score"' in render_comparison(study).replace(" ", "")


def test_arms_are_ranked_by_balanced_accuracy_where_classes_are_uneven(tmp_path):
    study = compared(
        tmp_path, "classes", "largest class", lambda good: {"knn": 0.95 - good / 100, "knn_balanced": good or 0.5}
    )
    (result,) = study.results
    assert list(result.rankings) == ["knn_balanced", "knn"]
    assert [arm.arm for arm in in_order(result)] == ["a", "b"]
    record = read_record(tmp_path / study.trials[0].name)
    assert any("largest class has 95%" in sentence for sentence in judge(record, None).more)


@pytest.fixture
def of_values() -> Evaluation:
    control = {"r2": 0.2, "r2_low": 0.1, "r2_high": 0.3, "mae": 9.5}
    arms = {"pretrained": control | {"r2": 0.25}, "untrained": control, "training mean": {"r2": 0.0, "mae": 14.25}}
    return Evaluation(arms, {"regression": ""}, 300, targets="values")


def test_tables_charts_and_glossary_have_scores_and_errors(of_values):
    console = Console(file=StringIO(), width=100)
    show_evaluation(console, of_values)
    said = console.file.getvalue()
    assert "0.250±0.100" in said
    assert "14.250" in said
    assert "ignores the images" in said
    arms = arms_of([("run", of_values)])
    (figure,) = accuracy_figure(arms)
    assert figure["label"] == "Score of every arm"
    assert evaluation_table(arms).rows[0][1].best
    assert not evaluation_table(arms).rows[0][2].best
    assert {"R²", "Mean absolute error"} <= glossary([of_values]).keys()


def test_a_guess_has_no_interval():
    assert Arm("run", "largest class", {"knn": 0.95}, 100).margin("knn") is None
    assert Arm("run", "pretrained", {"r2": 0.5}, 100).margin("r2") is None
