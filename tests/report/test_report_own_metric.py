"""A metric of one's own: what is said of it where it is registered is all that tables, charts and verdicts need."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from comparison_runs import write_plan, write_run
from rich.console import Console

from frossl.evals import METRICS, Column, metric
from frossl.evals.suite import Evaluation
from frossl.evals.verdict import verdict
from frossl.report.arms import arms_of, evaluation_table
from frossl.report.comparison import as_markdown, conclude, render_comparison
from frossl.report.comparison_notes import agreement_note
from frossl.report.figures import accuracy_figure
from frossl.report.study import read_study
from frossl.report.terminal import show_evaluation
from frossl.report.verdict import glossary

OWN = {
    "knn": 0.5,
    "knn_low": 0.4,
    "knn_high": 0.6,
    "votes": 0.75,
    "votes_low": 0.7,
    "votes_high": 0.8,
    "roughness": 2.5,
}
CONTROL = OWN | {"votes": 0.25, "roughness": 3.5}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A metric of labels and one without, for which lower is better, beside those there are."""
    monkeypatch.setattr(METRICS, "_things", dict(METRICS._things))
    columns = {"votes": Column("votes", "votes of trees", score="accuracy", decides=True)}
    metric("votes", needs_labels=True, protocol="", columns=columns, glossary={"Trees": "They vote."})(lambda f: {})
    columns = {"roughness": Column("rough.", "roughness", better="lower", digits=1)}
    metric("roughness", needs_labels=False, protocol="", columns=columns, order=0)(lambda f: {})


@pytest.fixture
def evaluation() -> Evaluation:
    return Evaluation({"pretrained": OWN, "untrained": CONTROL}, {"votes": ""}, 1000)


def test_it_is_in_the_table_of_the_terminal_in_its_place(evaluation):
    console = Console(file=StringIO(), width=80)
    show_evaluation(console, evaluation)
    said = console.file.getvalue()
    assert said.index("rough.") < said.index("kNN") < said.index("votes")
    assert "2.5 │ 0.500±0.100 │ 0.750±0.050" in said


def test_it_is_in_table_chart_and_glossary_of_the_report_and_counts_in_the_verdict(evaluation):
    arms = arms_of([("run", evaluation)])
    table = evaluation_table(arms)
    assert list(table.columns) == ["features", "roughness", "kNN", "votes of trees"]
    assert [cell.best for cell in table.rows[0]] == [True, False, True, True]  # its name, and the best accuracies
    assert "votes of trees" in accuracy_figure(arms)[0]["layout"]["yaxis"]["ticktext"]
    assert "Trees" in glossary([evaluation])
    assert "votes +50.0 points" in verdict(evaluation)


def test_it_ranks_the_arms_of_a_comparison_in_its_direction(tmp_path):
    runs = []
    for arm, knn in (("a", 0.8), ("b", 0.7), ("c", 0.6)):
        for seed in range(2):
            runs.append(write_run(tmp_path, arm, seed, knn))
            path = tmp_path / runs[-1]["name"] / "evaluation.json"
            saved = json.loads(path.read_text())
            own = {"votes": 1 - knn + 0.01 * seed, "roughness": knn}  # both order the arms the other way round
            saved["things"]["arms"]["pretrained"] |= own
            path.write_text(json.dumps(saved))
    study = read_study(write_plan(tmp_path, runs))
    (result,) = study.results
    assert list(result.rankings["votes"].means) == ["c", "b", "a"]
    assert list(result.rankings) == ["linear", "votes", "knn"]
    assert result.agreements["roughness"].spearman == pytest.approx(-1)  # lower is better, and kNN says higher
    assert "roughness" in agreement_note(result)[0]
    assert conclude(result, "votes").startswith("By votes of trees, c is ahead")
    text, page = as_markdown(study), render_comparison(study)
    assert "| votes | points behind |" in text
    assert "| arm | rough. |" in text
    assert '<th scope="col">rough.</th>' in page
    assert '"Final votes"' in page
    assert "Roughness and accuracy" in page
