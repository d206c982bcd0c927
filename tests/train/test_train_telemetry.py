"""What is watched while training, and that watching changes nothing."""

import json
import sys
import types
from io import StringIO

import pytest
import torch
from rich.console import Console
from test_train_loop import Killed, config, folder_of_images, kill_at, killed_at, losses, same_weights

import frossl.train.telemetry as room
from frossl.core.linalg import covariance_spectrum, second_moment_spectrum
from frossl.core.types import MethodSpec, UserError
from frossl.evals.alignment import alignment
from frossl.evals.extract import Extractor
from frossl.evals.lidar import lidar
from frossl.evals.spectral import effective_rank, summary
from frossl.methods import METHODS
from frossl.nn.encoder import load_encoder
from frossl.runs.config import Config
from frossl.runs.data import load_run_data
from frossl.runs.directory import read_run
from frossl.runs.log import read_rows
from frossl.train.health import Context, Finding
from frossl.train.pretrain import pretrain
from frossl.train.telemetry import KEPT, SAMPLES, WIDEST, Telemetry

pytestmark = pytest.mark.usefixtures("no_reports")

CONTEXT = Context("frossl", 8)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("images"))


def rows(run, kind, file="metrics.jsonl"):
    return [row for row in read_rows(run / file) if row["kind"] == kind]


def without_time(some):
    return [{k: v for k, v in row.items() if k not in ("seconds", "look_seconds")} for row in some]


def method(kind=METHODS["frossl"], joint=True):
    torch.manual_seed(0)
    return kind(kind.Config(projector="16-bn-relu-12"), MethodSpec(features=6, joint=joint))


def test_spectra_come_often_at_first_and_then_at_equal_distance():
    telemetry = Telemetry(method(), CONTEXT, 100)
    due = [step for step in range(1, 401) if telemetry.next_spectrum(step)[0] == step]
    assert due == [1, 2, 5, 10, 20, 50, 100, 200, 300, 400]
    seldom = Telemetry(method(), CONTEXT, 1000)
    of = [seldom.next_spectrum(step)[1:] for step in (1, 50, 100, 900, 3000)]
    assert of == [(1, 1), (1, 5), (1, 10), (9, 11), (9, 11)]
    diagnostics = [step for step in range(1, 241) if telemetry.diagnostics_due(step)]
    assert diagnostics == [1, *range(4, 101, 4), *range(120, 241, 20)]
    off = Telemetry(method(), CONTEXT, 0)
    assert not any(off.diagnostics_due(step) or off.next_spectrum(step)[0] == step for step in range(1, 600))


def test_a_spectrum_is_of_all_samples_of_steps_before_it_and_pairs_are_of_a_few_of_them():
    telemetry = Telemetry(method(), CONTEXT, 400)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for step in range(301, 401):
        seen.append(torch.randn(2, 2 * SAMPLES, 6, generator=generator) + step / 50)
        telemetry.observe(step, seen[-1], {"loss": torch.tensor(1.0)})
        kept = telemetry.kept.get("backbone", [])
        assert sum(x.shape[0] * x.shape[1] for x in kept) <= SAMPLES
    said = {row["where"]: row for kind, row in telemetry.drain() if kind == "spectrum"}
    of = torch.stack(seen[-40 + 3 :: 4])  # every fourth of the last tenth
    assert said["backbone"]["samples"] == 10 * 4 * SAMPLES
    assert said["projector"].keys() == said["backbone"].keys()
    whole, figures = of.flatten(0, 2), said["backbone"]
    wanted = summary(covariance_spectrum(whole), second_moment_spectrum(whole), whole.mean(0))
    assert wanted.keys() <= figures.keys()
    assert all(figures[name] == pytest.approx(value, rel=1e-4) for name, value in wanted.items())
    some = of[-KEPT:, :, : SAMPLES // KEPT // 2].transpose(0, 1).flatten(1, 2)
    assert figures["alignment"] == pytest.approx(alignment(some), rel=1e-4)
    assert figures["lidar"] == pytest.approx(lidar(some), rel=1e-4)
    assert (telemetry.moments, telemetry.kept) == ({}, {})


def test_of_features_too_wide_for_moments_the_samples_that_are_kept_are_told():
    telemetry = Telemetry(method(), CONTEXT, 100)
    wide = torch.randn(2, 8, WIDEST + 1, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        telemetry.gather("backbone", wide)
    assert telemetry.moments == {}
    telemetry.features = lambda h: {"backbone": h}
    telemetry.observe(100, wide, {})
    (row,) = (row for kind, row in telemetry.drain() if kind == "spectrum")
    assert row["samples"] == 3 * 16
    assert row["effective_rank"] == pytest.approx(effective_rank(wide.flatten(0, 1)), rel=1e-4)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("name", [m for m in METHODS if m not in ("random", "supervised")])
def test_every_method_shows_its_embeddings_and_nothing_changes(name, joint):
    torch.manual_seed(0)
    kind = METHODS[name]
    made = kind(kind.Config(), MethodSpec(features=24, joint=joint))
    before = {k: v.clone() for k, v in made.state_dict().items()}
    random = torch.get_rng_state()
    h = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(1))
    z = made.embed(h)
    assert z.shape[:2] == (2, 16)
    assert not z.requires_grad
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items())
    head = made.get_submodule(made.embeds)
    assert torch.equal(z, made.project(head, h))
    assert not torch.equal(made.eval().embed(h), z) or not any("running_mean" in k for k in head.state_dict())


def test_a_method_without_a_projector_is_watched_at_the_backbone():
    telemetry = Telemetry(
        METHODS["supervised"](METHODS["supervised"].Config(), MethodSpec(features=6, classes=3)), CONTEXT, 4
    )
    telemetry.observe(1, torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0)), {})
    said = telemetry.drain()
    assert {row["where"] for kind, row in said if kind == "spectrum"} == {"backbone"}
    assert not any(name.startswith("projector") for kind, row in said if kind == "diagnostics" for name in row)


def test_watching_changes_nothing_of_the_run(images, tmp_path):
    watched = pretrain(config(images, tmp_path, name="a", telemetry_every=2, track_eigenvalues="2ep")).run
    alone = pretrain(config(images, tmp_path, name="b", telemetry_every=0)).run
    assert losses(watched) == losses(alone)
    assert same_weights(watched, alone)
    assert {row["kind"] for row in read_rows(alone / "metrics.jsonl")} == {"train", "monitor"}
    assert not (alone / "eigenvalues.jsonl").exists()


def test_a_run_has_rows_of_both_places_and_both_kinds_of_images(images, tmp_path):
    run = pretrain(config(images, tmp_path, name="a", track_eigenvalues="1ep", telemetry_every=6)).run
    spectra = rows(run, "spectrum")
    held_out = [row for row in spectra if row["on"] == "held_out"]
    assert {(row["where"], row["on"]) for row in spectra} == {
        (where, on) for where in ("backbone", "projector") for on in ("views", "held_out")
    }
    assert [row["step"] for row in held_out] == [6, 6, 12, 12]
    monitor = rows(run, "monitor")
    assert held_out[0]["effective_rank"] == pytest.approx(monitor[0]["effective_rank"], rel=1e-5)
    for row in spectra:
        assert sum(row["eigenvalues"]) == pytest.approx(row["variance"], rel=1e-4)
        assert {"rankme", "stable_rank", "condition_number", "mean_to_spread", "uniformity"} <= row.keys()
    diagnostics = rows(run, "diagnostics")
    assert [row["step"] for row in diagnostics] == list(range(1, 13))
    train = rows(run, "train")
    assert [row["loss"] for row in diagnostics] == [row["loss"] for row in train]
    assert [row["entropy"] for row in diagnostics] == [row["entropy"] for row in train]
    tracked = rows(run, "eigenvalues", "eigenvalues.jsonl")
    assert [row["step"] for row in tracked] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert all(len(row["eigenvalues"]) <= 14 for row in tracked)
    first = {row["where"]: row for row in spectra if row["step"] == 1}
    assert tracked[0]["eigenvalues"] == first["backbone"]["eigenvalues"][: len(tracked[0]["eigenvalues"])]


def test_held_out_spectra_are_those_of_the_encoder_that_is_saved(images, tmp_path):
    asked = config(images, tmp_path, name="a", precision="32")
    run = pretrain(asked).run
    encoder, spec = load_encoder(run / "encoder.safetensors")
    data = load_run_data(asked)
    h = Extractor().split(encoder.eval(), data.test, spec)
    last = [row for row in rows(run, "spectrum") if row["on"] == "held_out" and row["where"] == "backbone"][-1]
    assert last["effective_rank"] == pytest.approx(effective_rank(h), rel=1e-3)


def test_spectra_of_held_out_images_are_not_closer_than_a_fifth_of_the_interval_also_across_a_kill(
    images, tmp_path, monkeypatch
):
    asked = config(images, tmp_path, name="r", telemetry_every=20, monitor_every="1it", checkpoint_every="6it")
    killed = killed_at(monkeypatch, 7, asked)
    pretrain(read_run(killed)[0], resume=killed)
    some = [row for row in rows(killed, "spectrum") if row["on"] == "held_out" and row["where"] == "backbone"]
    assert [row["step"] for row in some] == [1, 5, 9, 12]
    assert len(rows(killed, "monitor")) == 12


@pytest.mark.parametrize("checkpoint", [7, 9])
def test_a_resumed_run_has_the_rows_of_the_run_never_killed(images, tmp_path, monkeypatch, checkpoint):
    monkeypatch.setattr(room, "SAMPLES", 16)
    monkeypatch.setattr(Telemetry, "next_spectrum", lambda self, step: (-(-step // 5) * 5, 1, 3))
    changes = {"telemetry_every": 5, "track_eigenvalues": "11it"}
    whole = pretrain(config(images, tmp_path, name="whole", **changes)).run
    asked = config(images, tmp_path, name="killed", checkpoint_every=f"{checkpoint}it", **changes)
    killed = killed_at(monkeypatch, checkpoint + 2, asked)
    pretrain(read_run(killed)[0], resume=killed)
    for file in ("metrics.jsonl", "eigenvalues.jsonl"):
        assert without_time(read_rows(killed / file)) == without_time(read_rows(whole / file))


def finds(monkeypatch, states):
    """Makes the rules say what ``states`` has for the step of the newest row."""
    monkeypatch.setattr(
        room,
        "diagnose",
        lambda diagnostics, context: [
            Finding(s, "words of it", "turn it") for row in diagnostics[-1:] for s in states.get(row["step"], [])
        ],
    )


def test_on_a_device_without_float64_a_resumed_run_gathers_where_it_did_before(monkeypatch):
    own = method()
    watch = Telemetry(own, CONTEXT, every=100)
    watch.gather("backbone", torch.randn(2, 3, 4).double())
    monkeypatch.setattr(own, "parameters", lambda: iter([types.SimpleNamespace(device=torch.device("mps"))]))
    again = Telemetry(own, CONTEXT, every=100)
    again.load_state_dict(watch.state_dict())
    again.gather("backbone", torch.randn(2, 3, 4).double())
    assert again.moments["backbone"].count == 12


def test_a_finding_is_told_once_and_so_is_its_end_also_across_a_kill(images, tmp_path, monkeypatch):
    finds(monkeypatch, {2: ["Bad"], 3: ["Bad", "Worse"], **{step: ["Worse"] for step in range(4, 10)}})
    said = StringIO()
    asked = config(images, tmp_path, name="r", telemetry_every=5, checkpoint_every="4it")
    with monkeypatch.context() as patch:
        kill_at(patch, 5)
        with pytest.raises(Killed):
            pretrain(asked, console=Console(file=said, width=200))
    run = tmp_path / "r"
    pretrain(read_run(run)[0], resume=run, console=Console(file=said, width=200))
    found = [(row["step"], row["state"], row.get("over", False)) for row in rows(run, "health")]
    assert found == [(2, "Bad", False), (3, "Worse", False), (6, "Bad", True), (12, "Worse", True)]
    text = said.getvalue()
    assert text.count("step 2: Bad. words of") == 1
    assert text.count("step 3: Worse.") == 1
    assert text.count("step 12: no longer") == 1


def test_tensorboard_has_every_figure_under_a_stable_name_and_the_views(images, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finds(monkeypatch, {3: ["Bad"]})
    run = pretrain(config(images, tmp_path, name="a", track_eigenvalues="2it", telemetry_every=5)).run
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    names = set(board.Tags()["scalars"])
    assert {
        "train/loss",
        "monitor/knn",
        "spectrum/backbone/views/effective_rank",
        "spectrum/projector/held_out/von_neumann_entropy",
        "diagnostics/backbone_view_noise",
        "eigenvalues/projector/condition_number",
    } <= names
    assert board.Tags()["images"] == ["views"]
    assert board.Tags()["tensors"] == ["health/text_summary"]
    wanted = [row["loss"] for row in rows(run, "diagnostics")]
    assert [event.value for event in board.Scalars("diagnostics/loss")] == pytest.approx(wanted)


def test_without_the_package_wandb_is_refused_before_anything_is_made(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"frossl\[wandb\]"):
        pretrain(config(images, tmp_path, wandb=True))
    assert not any(tmp_path.iterdir())


def test_wandb_gets_the_numbers_of_every_row_under_one_id_and_is_finished(images, tmp_path, monkeypatch):
    sent, started, ended = [], [], []
    run = types.SimpleNamespace(log=lambda values, step: sent.append((step, values)), finish=lambda: ended.append(1))
    stub = types.SimpleNamespace(
        init=lambda **how: started.append(how) or run,
        Image=lambda array: ("image", array.shape),
        util=types.SimpleNamespace(generate_id=lambda: "abc"),
    )
    monkeypatch.setitem(sys.modules, "wandb", stub)
    asked = config(images, tmp_path, name="a", wandb=True, length="5it", monitor_every="100%", telemetry_every=5)
    made = pretrain(asked).run
    pretrain(read_run(made)[0], resume=made)
    assert [how["id"] for how in started] == ["abc", "abc"]
    assert started[0]["config"]["config"]["method"] == "frossl"
    assert len(ended) == 2
    assert (0, {"views": ("image", (20, 38, 3))}) in sent
    got = {(step, name): value for step, values in sent for name, value in values.items()}
    for row in rows(made, "diagnostics"):
        assert got[row["step"], "diagnostics/loss"] == row["loss"]
    for row in rows(made, "monitor"):
        assert got[row["step"], "monitor/knn"] == row["knn"]


@pytest.mark.parametrize(("name", "value"), [("telemetry_every", -1), ("track_eigenvalues", "2min")])
def test_what_cannot_be_watched_is_refused(name, value):
    with pytest.raises(UserError, match=name.replace("_", "-")):
        Config(data="x", **{name: value})


def test_rows_are_json_that_other_programs_can_read(images, tmp_path):
    asked = config(
        images, tmp_path, name="a", method="simclr", objective=METHODS["simclr"].Config(projector="16-relu-8")
    )
    run = pretrain(asked).run
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
