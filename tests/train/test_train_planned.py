"""The plan of a comparison: what ``comparison.json`` keeps when more is planned, and what is refused."""

import json
from pathlib import Path

import pytest

from frossl.core.types import UserError
from frossl.runs.config import Config
from frossl.train.compare import plan_runs
from frossl.train.planned import Run, check_plan, keep_plan
from frossl.train.tune import join_tuning, plan_trials


def plan(out: Path, *arms: str, budget: str = "1ep", **more) -> list[Run]:
    return plan_runs(
        arms, [budget], 1, lambda arm: Config(data="things", method=arm.split()[0].partition(":")[0], **more), out
    )


def kept(out: Path) -> dict:
    return json.loads((out / "comparison.json").read_text())


def test_a_plan_from_before_validation_was_kept_goes_on(tmp_path):
    keep_plan(plan(tmp_path, "frossl"), {})
    before = kept(tmp_path)
    for run in before["runs"]:
        del run["validation"]
    (tmp_path / "comparison.json").write_text(json.dumps(before))
    keep_plan(plan(tmp_path, "frossl", "vicreg"), {})
    assert [run["arm"] for run in kept(tmp_path)["runs"]] == ["frossl", "vicreg"]


def tuning_of(chosen: dict[str, float], budget: str = "1ep", measure: str = "linear", factor: float = 3.0) -> dict:
    """As trials of an arm for each of ``chosen`` have it."""
    trials = [{"arm": a, "lr": lr * x, "score": x / 9, "images": 5} for a, lr in chosen.items() for x in (1 / 3, 1, 3)]
    return {"measure": measure, "budget": budget, "factor": factor, "images": 5, "trials": trials, "chosen": chosen}


def test_arms_that_are_tuned_later_join_those_that_were(tmp_path):
    keep_plan(plan(tmp_path, "frossl", lr=3.0), {"tuning": tuning_of({"frossl": 3.0})})
    joined = join_tuning(tmp_path, tuning_of({"vicreg": 0.3}))
    assert joined["chosen"] == {"frossl": 3.0, "vicreg": 0.3}
    tried = [(trial["arm"], round(trial["lr"], 6)) for trial in joined["trials"]]
    assert tried == [("frossl", 1), ("frossl", 3), ("frossl", 9), ("vicreg", 0.1), ("vicreg", 0.3), ("vicreg", 0.9)]
    assert join_tuning(tmp_path, tuning_of({"frossl": 3.0})) == tuning_of({"frossl": 3.0})
    for other in ({"budget": "2ep"}, {"measure": "knn"}, {"factor": 2.0}):
        with pytest.raises(UserError, match=f"{next(iter(other))} .*--out"):
            join_tuning(tmp_path, tuning_of({"vicreg": 0.3}, **other))


def test_an_arm_is_tuned_in_all_of_its_runs_or_in_none(tmp_path):
    keep_plan(plan(tmp_path, "frossl", lr=3.0), {"tuning": tuning_of({"frossl": 3.0})})
    with pytest.raises(UserError, match="--tune-lr"):
        check_plan(plan(tmp_path, "frossl", budget="2ep"))
    check_plan(plan(tmp_path, "frossl", budget="2ep"), tuned={"frossl"})
    keep_plan(plan(tmp_path, "vicreg"), {})
    assert kept(tmp_path)["tuning"] == tuning_of({"frossl": 3.0})
    with pytest.raises(UserError, match="--tune-lr"):
        check_plan(plan(tmp_path, "vicreg", budget="2ep"), tuned={"vicreg"})


def test_arms_that_differ_in_signs_alone_have_names_of_their_own(tmp_path):
    below, above, plain = "frossl --anchor -1", "frossl --anchor 1", "frossl:4 --lr 1e-3"
    first, second, third = plan(tmp_path, below, above, plain)
    assert (first.name, third.name) == ("frossl-anchor-1-1ep-seed0", "frossl-4-lr-1e-3-1ep-seed0")
    assert second.name.startswith(first.name + "-")
    assert second.config.name == second.name
    keep_plan([first], {})
    assert plan(tmp_path, above, below)[0].name == second.name  # another arm was planned with that name
    assert plan(tmp_path, above, below)[1].name == first.name
    trials = plan_trials([first, second], 3, None, ["knn"])
    assert len({trial.name for trial in trials}) == 6
    with pytest.raises(UserError, match="planned twice"):
        plan(tmp_path, below, above, above)
