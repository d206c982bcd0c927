"""A comparison: what is planned, what is refused, and that stopping anywhere loses nothing."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from frossl.cli import main
from frossl.core.machine import available_cores
from frossl.core.types import Loss
from frossl.evals.interval import unpack_answers
from frossl.methods import METHODS
from frossl.report.study import read_study
from frossl.train.compare import arm_options

pytestmark = pytest.mark.usefixtures("no_reports")

TINY = ["--backbone-options", '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}', "--batch", "8", "--workers", "0"]
TINY += ["--held-out", "0.25"]


def write_images(root: Path, count: int) -> Path:
    generator = torch.Generator().manual_seed(count)
    for i in range(count):
        pixels = torch.randint(60 * (i % 2), 120 + 60 * (i % 2), (16, 16, 3), generator=generator, dtype=torch.uint8)
        path = root / ("dark", "bright")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    return root


@pytest.fixture
def images(tmp_path) -> Path:
    return write_images(tmp_path / "images", 48)


@pytest.fixture
def split(tmp_path) -> Path:
    """Images that bring a test split."""
    for name, count in (("train", 60), ("test", 20)):
        write_images(tmp_path / "split" / name, count)
    return tmp_path / "split"


def states(out: Path) -> dict[str, str]:
    return {t.name: t.state for t in read_study(out).trials}


@pytest.mark.parametrize(
    ("arm", "options"),
    [
        ("frossl", ["--method", "frossl"]),
        ("frossl:4", ["--method", "frossl", "--views", "4"]),
        ("my_module:Mine", ["--method", "my_module:Mine"]),
        ("my_module:Mine:4", ["--method", "my_module:Mine", "--views", "4"]),
        ("vicreg --lr 1e-3", ["--method", "vicreg", "--lr", "1e-3"]),
        ("frossl:2 --name 'a b'", ["--method", "frossl", "--views", "2", "--name", "a b"]),
    ],
)
def test_an_arm_is_a_method_with_views_and_options(arm, options):
    assert arm_options(arm) == options


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--budget", "1ep"], r"give at least one arm \(--methods or --arms\): "),
        (["--methods", "frossl"], "give a --budget: "),
        (["--methods", "frossl", "--budget", "1ep", "--seeds", "0"], "give --seeds of 1 or more: "),
        (["--arms", "frossl", "--views", "2", "4", "--budget", "1ep"], "--views .*--methods.* frossl:2 frossl:4"),
        (["--arms", "frossl:x", "--budget", "1ep"], "'frossl:x': 'x' is not a number of views"),
        (["--methods", "frosll", "--budget", "1ep"], "mean 'frossl' or"),
        (["--arms", "vicreg", "frossl:1", "--budget", "1ep"], "--views .*at least 2.* arm 'frossl:1'"),
        (["--arms", "barlow", "vicreg --scale 3", "--budget", "1ep"], "scale.* 'vicreg --scale 3'.* vicreg --help"),
        (["--arms", "frossl --lr", "--budget", "1ep"], "'--lr'.* arm 'frossl --lr'"),
        (["--arms", "frossl 'lr", "--budget", "1ep"], "is no arm"),
        (["--arms", "frossl", "frossl", "--budget", "1ep"], "planned twice"),
        (["--arms", "frossl", "--budget", "5%"], "--length must be .*5%"),
        (["--arms", "frossl", "--budget", "one"], "is not a length"),
        (["--arms", "frossl", "--budget", "1ep", "--seed", "3"], "--seed: frossl compare"),
        (["--arms", "frossl", "--budget", "1ep", "--warmup", "1min"], "--warmup 1min .*1ep"),
        (["--arms", "frossl", "frossl --held-out 0.5", "--budget", "1ep"], "differ in held_out"),
        (["--arms", "frossl", "--budget", "1ep", "--target", "40"], "--target 40.* share"),
        (["--arms", "frossl", "frossl --monitor-every 50%", "--budget", "1ep"], "50%.* --monitor-every once"),
        (["--arms", "frossl", "--budget", "1min", "--jobs", "2"], "--jobs 2: .*1min"),
        (["--arms", "frossl", "--budget", "1ep", "--tune-lr", "2"], "odd number of rates"),
        (["--arms", "frossl", "--budget", "1ep", "--tune-lr", "3"], "brings no held-out split"),
        (["--arms", "frossl", "--budget", "1ep", "--tune-lr", "3", "--protocol", "rank"], "has an accuracy"),
        (["--arms", "frossl", "--budget", "1ep", "--protocol", "knm"], "mean 'knn'[?]"),
        (["--arms", "frossl", "--budget", "1ep", "--only", "frossl-2ep-seed0"], "mean 'frossl-1ep-seed0'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(frossl, images, tmp_path, argv, says):
    code, said = frossl("compare", images, *TINY, *argv)
    assert code == 2
    assert re.search(says, said)
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_the_plan_has_every_arm_under_every_budget_with_every_seed(frossl, images, tmp_path):
    arms = ["--methods", "frossl", "vicreg", "--views", "2", "3", "--arms", "frossl --lr 1e-3", "--seeds", "2"]
    code, said = frossl("compare", images, *TINY, *arms, "--budget", "1ep", "96view", "--dry-run")
    assert code == 0
    assert said.count("to do") == 5 * 2 * 2
    assert "vicreg-3-96view-seed1" in said
    assert "frossl-lr-1e-3-1ep-seed0" in said
    assert not (tmp_path / "runs").exists()


def test_a_comparison_ends_with_a_page_and_tables_and_is_not_run_again(frossl, images, tmp_path):
    argv = ["compare", images, *TINY, "--arms", "frossl", "frossl:4", "--seeds", "1", "--budget", "96view"]
    argv += ["--out", "study", "--protocol", "knn", "rank", "--target", "0.125", "--target-metric", "ridge"]
    code, said = frossl(*argv)
    assert code == 0
    assert set(states(tmp_path / "study").values()) == {"done"}
    assert frossl("report", "study")[0] == 0  # which knows the target
    (result,) = json.loads((tmp_path / "study/comparison.json").read_text())["results"]
    assert result["target"]["value"] == 0.125
    assert len(result["machines"]) == 1
    for name in ("comparison.json", "comparison.md", "comparison.html"):
        assert (tmp_path / "study" / name).stat().st_size > 500
    rows = {r["arm"]: r for r in json.loads((tmp_path / "study/comparison.json").read_text())["results"][0]["arms"]}
    assert rows["frossl"]["spent"]["images"] == 48
    assert rows["frossl:4"]["spent"]["images"] == 24  # the same forward passes
    assert rows["frossl"]["spent"]["views"] == rows["frossl:4"]["spent"]["views"] == 96
    assert rows["frossl"]["peak_memory"] > 2**20
    logs = {p.stem: p.read_text() for p in (tmp_path / "study/logs").glob("*.txt")}
    measured = {name for name, log in logs.items() if "evaluating untrained" in log}
    assert measured == {"frossl-96view-seed0"}  # the first run of the seed; the other takes its controls
    found = [json.loads((p.parent / "evaluation.json").read_text()) for p in (tmp_path / "study").glob("*/config.json")]
    assert all({"untrained", "raw pixels"} <= evaluation["images"]["arms"].keys() for evaluation in found)
    configs = [json.loads(p.read_text())["config"] for p in (tmp_path / "study").glob("*/config.json")]
    assert [c["monitor_every"] for c in configs] == ["geometric"] * 2
    (curve,) = rows["frossl"]["curves"]
    assert len(curve["ridge"]) == len(curve["knn"]) == len(curve["seconds"]) == len(curve["views"])
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "study").glob("*/outcome.json")}
    code, said = frossl(*argv[: argv.index("--target")])
    assert code == 0
    assert said.count("done before") == 2
    kept = json.loads((tmp_path / "study/comparison.json").read_text())
    assert (kept["target"], kept["target_metric"]) == (0.125, "ridge")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "study").glob("*/outcome.json")} == before
    code, said = frossl(*argv, "--lr", "1e-3")
    assert code == 2
    assert re.search(r"\blr was None, would be 0\.001", said)
    code, said = frossl(*argv, "--monitor-every", "50%")
    assert code == 0  # that changes nothing that is learned


def test_commands_for_a_cluster_are_carried_out_one_by_one(frossl, images, tmp_path, capsys):
    argv = ["compare", images, *TINY, "--arms", "frossl", "random", "--seeds", "1", "--budget", "1ep"]
    argv += ["--protocol", "knn"]
    with pytest.raises(SystemExit):
        main([str(a) for a in [*argv, "--commands"]])
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2
    assert commands[0].endswith("--only frossl-1ep-seed0")
    assert frossl(*argv, "--only", "frossl-1ep-seed0")[0] == 0
    out = tmp_path / "runs" / "comparison"
    assert states(out) == {"frossl-1ep-seed0": "done", "random-1ep-seed0": "unfinished"}
    code, said = frossl("report", out)
    assert code == 0
    assert "1 of 2 runs with 1ep" in said


def test_each_arm_gets_the_rate_that_is_best_on_training_images_kept_aside(frossl, split, tmp_path, capsys):
    argv = ["compare", split, *TINY, "--arms", "frossl", "random", "--seeds", "1", "--budget", "2ep", "--tune-lr", "3"]
    argv += ["--protocol", "knn", "rank"]

    def commands() -> list[str]:
        with pytest.raises(SystemExit):
            main([str(a) for a in [*argv, "--commands"]])
        return [line.rpartition("--only ")[2] for line in capsys.readouterr().out.splitlines()]

    trials = commands()
    assert trials == ["frossl-lr-0.000667", "frossl-lr-0.002", "frossl-lr-0.006"]  # random learns nothing
    code, said = frossl(*argv, "--only", "frossl-2ep-seed0")
    assert code == 2
    assert "not chosen yet" in said
    for name in trials:
        assert frossl(*argv, "--only", name)[0] == 0
    out = tmp_path / "runs" / "comparison"
    (measured,) = json.loads((out / "trials" / trials[0] / "evaluation.json").read_text()).values()
    assert measured["held_out"] == 6  # a tenth of the training images
    about = json.loads((out / "trials" / trials[0] / "config.json").read_text())
    assert about["images"] == [54, 6]
    assert about["config"]["length"] == "0.5ep"
    path = out / "trials" / trials[2] / "evaluation.json"
    saved = json.loads(path.read_text())
    saved["split"]["arms"]["pretrained"]["knn"] = 1.01  # the best, whatever it was
    path.write_text(json.dumps(saved))
    assert commands() == ["frossl-2ep-seed0", "random-2ep-seed0"]
    for name in ("frossl-2ep-seed0", "random-2ep-seed0"):
        assert frossl(*argv, "--only", name)[0] == 0
    code, said = frossl(*argv, "--jobs", "auto")
    assert code == 0
    assert said.count("done before") == 5
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["tuning"]["chosen"] == {"frossl": 0.006}
    assert [trial["lr"] for trial in saved["tuning"]["trials"]] == [0.000667, 0.002, 0.006]
    assert [run["config"]["lr"] for run in saved["runs"]] == [0.006, None]
    assert json.loads((out / "frossl-2ep-seed0" / "config.json").read_text())["config"]["lr"] == 0.006
    (tested,) = json.loads((out / "frossl-2ep-seed0" / "evaluation.json").read_text()).values()
    assert tested["held_out"] == 20
    assert len(unpack_answers(tested["answers"]["pretrained"]["knn"], 20)) == 20
    assert "0.006" in (out / "comparison.md").read_text()
    argv += ["--validation"]
    code, said = frossl(*argv)
    assert code == 2
    assert "validation was False, would be True" in said


def test_where_runs_cannot_go_is_told_before_rates_are_tried(frossl, split, tmp_path):
    argv = ["compare", split, *TINY, "--arms", "frossl", "--seeds", "1", "--budget", "2ep", "--protocol", "knn"]
    (tmp_path / "mine" / "thesis").mkdir(parents=True)
    code, said = frossl(*argv, "--tune-lr", "3", "--commands", "--out", tmp_path / "mine")
    assert code == 2
    assert "something else" in said
    frossl(*argv, "--commands")
    code, said = frossl(*argv, "--tune-lr", "3", "--commands")
    assert code == 2
    assert "its own learning rate" in said
    assert not (tmp_path / "runs/comparison/trials").exists()


@pytest.mark.skipif(len(available_cores()) < 2, reason="one core has no two parts")
def test_runs_side_by_side_end_as_one_after_the_other(frossl, images, tmp_path):
    argv = ["compare", images, *TINY, "--arms", "random", "--seeds", "2", "--budget", "1ep", "--protocol", "knn"]
    code, said = frossl(*argv, "--jobs", "2")
    assert code == 0
    assert "2 side by side" in said
    configs = [json.loads(p.read_text()) for p in (tmp_path / "runs/comparison").glob("*/config.json")]
    assert [int(c["environment"]["threads"]) for c in configs] == [int(c["machine"]["cores"]) for c in configs]
    assert frossl(*argv)[1].count("done before") == 2


def test_minutes_of_another_machine_are_refused(frossl, images, tmp_path):
    argv = ["compare", images, *TINY, "--arms", "random", "--seeds", "2", "--budget", "0.01min", "--protocol", "knn"]
    frossl(*argv, "--commands")
    assert frossl(*argv, "--only", "random-0.01min-seed0")[0] == 0
    path = tmp_path / "runs/comparison/random-0.01min-seed0/config.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"machine": about["machine"] | {"processor": "Abacus 3"}}))
    code, said = frossl(*argv, "--only", "random-0.01min-seed1")
    assert code == 2
    assert "another machine (Abacus 3" in said


def test_a_run_whose_loss_is_no_number_has_diverged_and_stays_so(frossl, images, tmp_path, monkeypatch):
    argv = ["compare", images, *TINY, "--arms", "frossl", "--seeds", "1", "--budget", "2ep", "--protocol", "knn"]
    frossl(*argv, "--commands")
    method = METHODS["frossl"]
    forward = method.forward

    def bad(self, h_VNF, moment):
        loss = forward(self, h_VNF, moment)
        return Loss(loss.total * torch.nan, loss.terms) if moment.progress == 3 / 8 else loss

    monkeypatch.setattr(method, "forward", bad)
    code, said = frossl(*argv, "--only", "frossl-2ep-seed0")
    assert code == 0
    assert "Diverged step 3" in said
    out = tmp_path / "runs" / "comparison"
    assert states(out) == {"frossl-2ep-seed0": "diverged"}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, said = frossl(*argv)
    assert "diverged before" in said
    assert "frossl diverged with 1 of 1" in said


def test_a_run_that_was_killed_goes_on_and_one_without_a_checkpoint_starts_anew(frossl, images, tmp_path):
    argv = ["compare", images, *TINY, "--arms", "frossl", "--seeds", "1", "--budget", "4ep", "--protocol", "knn"]
    frossl(*argv, "--commands")
    run = tmp_path / "runs" / "comparison" / "frossl-4ep-seed0"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 1')
    assert frossl(*argv, "--only", run.name)[0] == 0
    whole = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(whole[-1])["step"] == 16
    (run / "outcome.json").unlink()  # killed between the end of training and the evaluation
    assert frossl(*argv, "--only", run.name)[0] == 0
    assert (run / "metrics.jsonl").read_text().splitlines() == whole
    assert states(run.parent) == {run.name: "done"}
    assert frossl(*argv, "rank", "--only", run.name)[0] == 0  # one more figure: measured, not trained again
    (values,) = json.loads((run / "evaluation.json").read_text()).values()
    assert {"knn", "effective_rank"} <= set(values["arms"]["pretrained"])
    assert (run / "metrics.jsonl").read_text().splitlines() == whole


def test_two_processes_do_not_carry_out_the_same_run(frossl, images, tmp_path):
    argv = ["compare", images, *TINY, "--arms", "random", "--seeds", "1", "--budget", "1ep", "--protocol", "knn"]
    frossl(*argv, "--commands")
    logs = tmp_path / "runs" / "comparison" / "logs"
    logs.mkdir()
    with (logs / "random-1ep-seed0.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, said = frossl(*argv, "--only", "random-1ep-seed0")
        assert code == 2
        assert "another process" in said
        assert "random-1ep-seed0" in said
    assert frossl(*argv, "--only", "random-1ep-seed0")[0] == 0


def test_ctrl_c_saves_the_run_that_is_at_it_and_it_goes_on(frossl, images, tmp_path):
    argv = ["compare", str(images), *TINY, "--arms", "frossl", "random"]
    argv += ["--seeds", "1", "--budget", "0.2min", "--protocol", "knn", "--log-every", "1"]
    out = tmp_path / "runs" / "comparison"
    metrics = out / "frossl-0.2min-seed0" / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "frossl.cli", *argv],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopped by SIGINT, saved" in said
    assert list((metrics.parent / "checkpoints").glob("step-*"))
    steps = metrics.read_text().count("\n")
    assert not (out / "random-0.2min-seed0").exists()
    for name in ("frossl-0.2min-seed0", "random-0.2min-seed0"):  # as the same command would in processes of their own
        assert frossl(*argv, "--only", name)[0] == 0
    assert frossl(*argv)[1].count("done before") == 2
    assert set(states(out).values()) == {"done"}
    assert metrics.read_text().count("\n") > steps
