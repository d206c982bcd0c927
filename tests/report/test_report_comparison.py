"""The page, the tables and the sentences of a comparison, from runs written down by hand."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from comparison_runs import write_plan, write_run

from frossl.core.types import UserError
from frossl.evals.interval import pack_answers
from frossl.evals.ranking import rank
from frossl.report.comparison import as_markdown, conclude, render_comparison, write_comparison
from frossl.report.comparison_notes import agreement_note, left_out, margin_notes, plan_notes, target_notes
from frossl.report.comparison_tables import arm_name, tables, tuning_table
from frossl.report.study import BudgetResult, read_study
from frossl.report.targets import Target


@pytest.fixture
def study(tmp_path) -> Path:
    """Two arms that are apart, one like the better, one that diverged, one with a seed that is not finished."""
    accuracies = {"frossl:4": [0.80, 0.82], "vicreg:2": [0.79, 0.815], "simclr:2": [0.60, 0.62]}
    runs = [write_run(tmp_path, a, s, x, views=int(a[-1])) for a, xs in accuracies.items() for s, x in enumerate(xs)]
    runs.append(write_run(tmp_path, "byol:2", 0, 0.9))
    runs.append({"name": "byol-2-2ep-seed1", "arm": "byol:2", "budget": "2ep", "seed": 1, "config": {}})
    (tmp_path / "byol-2-2ep-seed1").mkdir()
    diverged = {"state": "diverged", "message": "step 3: not finite <b>"}
    (tmp_path / "byol-2-2ep-seed1" / "outcome.json").write_text(json.dumps(diverged))
    runs.append({"name": "mmcr-2-2ep-seed0", "arm": "mmcr:2", "budget": "2ep", "seed": 0, "config": {}})
    return write_plan(tmp_path, runs)


def texts(table) -> dict[str, list[str]]:
    """The cells of each row, by its name."""
    return {name.value: [cell.value for cell in cells] for name, *cells in table.rows}


def result_of(values: dict[str, list[float]], error: float = 0.0) -> BudgetResult:
    """A result whose arms have this standard error over images."""
    ranking = rank(values, {one: dict.fromkeys(values.keys() - {one}, error) for one in values})
    return BudgetResult("1ep", [], [], Target("knn", None, False, None, []), 100, {"knn": ranking}, {})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"a": [0.50, 0.60], "b": [0.30, 0.40001]}, r"\ba is ahead of b by 20\.0 points, ± 0\.0 .*2 seeds"),
        (
            {"a": [0.5, 0.6], "b": [0.4, 0.50001], "c": [0.1, 0.2]},
            r"\ba is ahead of b by 10\.0 points, ± 0\.0 .*2 seeds.* c by more",
        ),
        ({"a": [0.5, 0.6], "b": [0.6, 0.51]}, r"told apart .* 0\.5 points, ± 120\.7 .*2 seeds"),
        (
            {"a": [0.50, 0.60], "b:2": [0.50, 0.601], "c": [0.1, 0.2], "d": [0.0, 0.1]},
            r"^b V=2 and a .*told apart .*; b V=2 is ahead of c by 40\.0 points, ± 0\.2 .*2 seeds.* d by more",
        ),
        ({"a": [0.5], "b": [0.9]}, r"one seed .* b, 40\.0 points"),
        ({"a": [0.5, 0.6]}, r"^Only a "),
    ],
)
def test_the_sentence_says_what_the_seeds_support(values, says):
    said = conclude(result_of(values), "knn")
    assert re.search(says, said)
    assert "kNN" in said
    assert ("is ahead" in said) == ("is ahead" in says)


def test_a_difference_that_other_images_may_undo_is_no_lead():
    values = {"a": [0.516, 0.518], "b": [0.5, 0.5016]}
    assert "a is ahead of b" in conclude(result_of(values, error=0.005), "knn")
    said = conclude(result_of(values, error=0.01), "knn")
    assert re.search(r"told apart .* 1\.6 points, ± 2\.0 \(± 0\.3 over 2 seeds and ± 2\.0 over images", said)
    (note,) = margin_notes(result_of(values))
    assert "1 degree of freedom" in note
    assert "31.9 times" in note


def test_margins_over_images_are_paired_where_answers_were_kept(tmp_path):
    generator = torch.Generator().manual_seed(0)
    hard = torch.rand(500, generator=generator)
    answers = {arm: hard < share for arm, share in (("a", 0.8), ("b", 0.75))}  # b is right where a is, and less often
    runs = [
        write_run(tmp_path, arm, seed, right.double().mean().item())
        for arm, right in answers.items()
        for seed in (0, 1)
    ]
    (result,) = read_study(write_plan(tmp_path, runs)).results
    apart = result.rankings["linear"]
    assert not apart.paired
    for run in runs:
        path = tmp_path / run["name"] / "evaluation.json"
        saved = json.loads(path.read_text())
        saved["things"]["answers"] = {"pretrained": {"linear": pack_answers(answers[run["arm"]])}}
        path.write_text(json.dumps(saved))
    ranking = read_study(tmp_path).results[0].rankings["linear"]
    assert ranking.paired
    difference = (answers["a"].double() - answers["b"].double()).numpy()
    error = difference.std(ddof=1) / 500**0.5
    assert ranking.over_images("a", "b") == pytest.approx(1.96 * error, rel=1e-3)
    assert ranking.over_images("a", "b") < apart.over_images("a", "b")
    assert not read_study(tmp_path).results[0].rankings["knn"].paired


def test_an_arm_is_named_with_its_views():
    assert arm_name("my_module:Mine") == "my_module:Mine"
    assert arm_name("my_module:Mine:4 --lr 1") == "my_module:Mine V=4 --lr 1"


def test_arms_are_ranked_over_the_seeds_that_they_share(study):
    (result,) = read_study(study).results
    assert list(result.rankings["linear"].means) == [
        "frossl:4",
        "vicreg:2",
        "simclr:2",
    ]  # not byol, of which a seed diverged
    assert result.rankings["linear"].seeds == 2
    diverged, unfinished = left_out(result)
    assert diverged.startswith("byol V=2 diverged with 1 of 2")
    assert unfinished.startswith("1 of 9 runs with 2ep")
    assert re.match(r"frossl V=4 and vicreg V=2 .*told apart .*linear probe;", conclude(result, "linear"))


def retarget(out: Path, **plan) -> BudgetResult:
    """The result with another target in the plan."""
    path = out / "comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | plan))
    return read_study(out).results[0]


def reached(result: BudgetResult) -> dict:
    return {a.arm: a.reached for a in result.arms}


def test_a_target_is_the_best_of_the_worst_run_unless_it_is_given(study):
    result = retarget(study)
    found = reached(result)
    assert result.target.value == pytest.approx(0.60)
    assert result.target.pixels == 0.3
    seeds = [2 / 2, 2 * 0.60 / 0.62 / 2]  # in epochs of two: the first at its end, the second before
    assert found["simclr:2"].means["epoch"] == pytest.approx(sum(seeds))
    assert found["simclr:2"].margins["epoch"] == pytest.approx(12.706 * (seeds[0] - seeds[1]), rel=1e-3)
    assert found["frossl:4"].means["views"] == pytest.approx(4 * found["frossl:4"].means["images"])
    assert found["frossl:4"].means["seconds"] == pytest.approx(40 * 0.6 * (1 / 0.80 + 1 / 0.82) / 2)
    result = retarget(study, target=0.81)
    found = reached(result)
    assert [found[a].seeds for a in ("frossl:4", "vicreg:2", "simclr:2")] == [1, 1, 0]
    assert found["frossl:4"].bound == "after"
    assert found["frossl:4"].means["images"] == pytest.approx((2000 + 2000 * 0.81 / 0.82) / 2)  # the other at its end
    rows = texts(tables(result)[2])
    assert rows["mmcr V=2"] == ["–"] * 5  # which the monitor has not looked at
    assert rows["simclr V=2"] == ["after 2.00", "after 2,000", "after 4,000", "after 0.67", "0 of 2"]


def test_a_target_that_is_there_at_the_first_look_was_reached_before(study):
    result = retarget(study, target=0.18)
    found = reached(result)["frossl:4"]
    assert (found.bound, found.seeds, found.early) == ("before", 2, 2)
    assert found.margins == {}
    rows = texts(tables(result)[2])
    assert rows["frossl V=4"][:2] == ["before 0.50", "before 500"]
    assert reached(result)["simclr:2"].bound == ""  # 0.15 and 0.155 at the first look
    assert any("does not lie above raw pixels" in note for note in target_notes(result))


def test_no_target_is_made_up_below_raw_pixels(tmp_path):
    runs = [write_run(tmp_path, arm, 0, knn) for arm, knn in (("a", 0.25), ("b", 0.5), ("c", 0.4))]
    result = retarget(write_plan(tmp_path, runs))
    assert result.target.value == 0.4  # not 0.25, as raw pixels have 0.3
    assert reached(result)["a"].bound == "after"
    result = retarget(write_plan(tmp_path, runs[:1]))
    assert result.target.value is None
    assert len(tables(result)) == 3
    assert any("No run" in note for note in target_notes(result))


def test_a_target_may_be_of_the_ridge_probe_and_time_is_that_of_training(tmp_path):
    runs = [write_run(tmp_path, "a", 0, 0.8)]
    path = tmp_path / runs[0]["name"] / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row | ({"ridge": row["knn"] / 2, "look_seconds": 2.0} if "knn" in row else {}) for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_plan(tmp_path, runs)
    assert reached(retarget(tmp_path, target=0.3, target_metric="knn"))["a"].means["images"] == pytest.approx(750)
    result = retarget(tmp_path, target=0.3, target_metric="ridge")
    assert reached(result)["a"].means["images"] == pytest.approx(1500)
    assert reached(result)["a"].means["seconds"] == pytest.approx(30 - 3 * 2.0)
    (curve,) = result.arms[0].curves
    assert curve["ridge"] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert curve["seconds"] == [8, 16, 24, 32]


def test_tables_have_costs_and_controls(study):
    (result,) = read_study(study).results
    found = {table.title: texts(table) for table in tables(result)}
    accuracy, accuracy_table = found["Accuracy"], tables(result)[0]
    assert re.fullmatch(r"20\.0 \(± [\d.]+ over seeds, ± [\d.]+ over images\)", accuracy["simclr V=2"][1])
    assert re.fullmatch(r"20\.0 ± [\d.]+", texts(tables(result, brief=True)[0])["simclr V=2"][1])
    assert accuracy["frossl V=4"][0] == "0.810"
    assert accuracy_table.rows[0][1].margin == "±0.127"  # 12.706 times the standard error of 0.80 and 0.82
    assert accuracy["untrained"][0] == "0.250"
    assert accuracy["raw pixels"][0] == "0.300"
    assert accuracy["byol V=2"][-1] == "1, 1 diverged"
    assert accuracy["mmcr V=2"][-1] == "0, 1 not finished"
    spent = found["What was spent"]
    assert spent["frossl V=4"] == ["2.00", "2,000", "8,000", "0.67", "2,000", "1,024"]
    assert spent["mmcr V=2"] == ["–"] * 6


def test_rates_that_were_tried_are_shown_with_the_one_that_was_chosen(study):
    tried = {"frossl:4": [0.30, 0.35, 0.33], "vicreg:2": [0.31, None, 0.32]}
    trials = [{"arm": a, "lr": lr, "score": x} for a, of in tried.items() for lr, x in zip((1, 3, 9), of, strict=True)]
    tuning = {"measure": "linear", "budget": "0.5ep", "factor": 3.0, "images": 500, "trials": trials}
    retarget(study, tuning=tuning | {"chosen": {"frossl:4": 3, "vicreg:2": 9}}, found_for={"cifar10-cpu": "frossl"})
    made = tuning_table(read_study(study).about)
    assert texts(made)["frossl V=4"] == ["1: 0.300", "3: 0.350", "9: 0.330", "3"]
    assert texts(made)["vicreg V=2"] == ["1: 0.310", "3: –", "9: 0.320", "9"]
    assert [cell.best for cell in made.rows[0][1:]] == [False, True, False, False]
    own, beyond, recipe = plan_notes(read_study(study))
    assert "No learning rate was chosen for simclr V=2, byol V=2, mmcr V=2:" in own
    assert beyond.startswith("Each other arm's")
    assert "beyond those tried for vicreg V=2" in beyond
    assert "cifar10-cpu were found for frossl" in recipe
    write_comparison(study)
    for name in ("comparison.md", "comparison.html"):
        assert "after 0.5ep each" in (study / name).read_text()


def test_an_arm_with_fewer_rates_has_its_own_in_the_same_column(study):
    trials = [{"arm": "a", "lr": lr, "score": 0.5} for lr in (1, 3, 9, 27, 81)]
    trials += [{"arm": "b", "lr": lr, "score": 0.5} for lr in (2, 6, 18)]
    tuning = {"measure": "linear", "budget": "1ep", "factor": 3.0, "images": 500, "trials": trials}
    made = tuning_table({"tuning": tuning | {"chosen": {"a": 9, "b": 6}}})
    assert made is not None
    assert len(made.columns) == 7
    assert texts(made)["a"][2] == "9: 0.500"
    assert texts(made)["b"][1:] == ["2: 0.500", "6: 0.500", "18: 0.500", "–", "6"]


def test_minutes_on_machines_that_are_not_alike_are_not_ranked(tmp_path):
    runs = [write_run(tmp_path, arm, seed, 0.5, budget="1min") for arm in "ab" for seed in (0, 1)]
    for run, processor in zip(runs, ("fast", "fast", "slow", "fast"), strict=True):
        path = tmp_path / run["name"] / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": {"processor": processor}}))
    (result,) = read_study(write_plan(tmp_path, runs)).results
    assert result.rankings == {}
    assert any("several machines" in said and "slow" in said for said in left_out(result))
    assert "Nothing to rank" in render_comparison(read_study(tmp_path))


def test_label_free_figures_are_correlated_over_ranked_arms(study):
    (result,) = read_study(study).results
    assert result.agreements["effective_rank"].kendall == pytest.approx(1.0)
    assert result.agreements["alignment"].kendall == pytest.approx(1.0)  # lower counts as better
    assert result.agreements["effective_rank"].arms == 3
    (note,) = agreement_note(result)
    assert "over 3 arms" in note
    assert "beyond chance" in note


def test_what_is_written_is_there_and_harmless(study):
    write_comparison(study)
    page = (study / "comparison.html").read_text()
    assert "step 3: not finite &lt;b&gt;" in page
    assert "a &lt;processor&gt;" in page
    saved = json.loads((study / "comparison.json").read_text())
    assert saved["results"][0]["rankings"]["linear"]["seeds"] == 2
    assert read_study(study).about["results"] == saved["results"]  # and is read again
    assert "| simclr V=2 | " in (study / "comparison.md").read_text()


def test_nothing_done_yet_is_a_page_too(tmp_path):
    write_plan(tmp_path, [{"name": "a-1ep-seed0", "arm": "a", "budget": "1ep", "seed": 0, "config": {"data": "x"}}])
    study = read_study(tmp_path)
    assert "Nothing to rank" in render_comparison(study)
    assert "1 of 1 runs with 1ep" in as_markdown(study)


def test_results_outlive_their_run_directories(study):
    write_comparison(study)
    before = {name: (study / name).read_text() for name in ("comparison.md", "comparison.json")}
    for run in json.loads(before["comparison.json"])["runs"]:
        shutil.rmtree(study / run["name"], ignore_errors=True)
    (study / "comparison.md").unlink()
    write_comparison(study)
    assert {name: (study / name).read_text() for name in before} == before


def test_results_that_cannot_be_read_are_not_overwritten(study):
    write_comparison(study)
    saved = json.loads((study / "comparison.json").read_text())
    for run in saved["runs"]:
        shutil.rmtree(study / run["name"], ignore_errors=True)
    del saved["results"][0]["arms"][0]["values"]
    (study / "comparison.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"its runs are gone.*values"):
        write_comparison(study)
    assert json.loads((study / "comparison.json").read_text()) == saved


COMMITTED = sorted((Path(__file__).parents[2] / "docs/results/comparisons").iterdir())


@pytest.mark.parametrize("page", COMMITTED, ids=lambda path: path.name)
def test_the_pages_of_the_docs_are_those_of_their_rows(page, tmp_path):
    shutil.copy(page / "comparison.json", tmp_path)
    write_comparison(tmp_path)
    for name in ("comparison.md", "comparison.json"):
        assert (tmp_path / name).read_text() == (page / name).read_text()
