"""The plan of a comparison: what ``comparison.json`` keeps when more is planned, and what is refused."""

import json
from pathlib import Path

from frossl.runs.config import Config
from frossl.train.compare import Run, keep_plan, plan_runs


def plan(out: Path, *arms: str, budget: str = "1ep", **more) -> list[Run]:
    return plan_runs(arms, [budget], 1, lambda options: Config(data="things", method=options[1], **more), out)


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
