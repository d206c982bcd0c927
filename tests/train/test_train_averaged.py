"""``--weights averaged``: the moving average of the encoder is kept at the end, evaluated and exported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from frossl.core.types import UserError
from frossl.methods import METHODS
from frossl.nn.encoder import load_encoder
from frossl.runs.checkpoint import load_checkpoint, newest_checkpoint
from frossl.runs.directory import encoder_of, read_run
from frossl.runs.export import export_encoder
from frossl.train.evaluate import evaluate_run
from frossl.train.pretrain import pretrain
from report.tiny_runs import config, folder

pytestmark = pytest.mark.usefixtures("no_reports", "two_penalties")

AVERAGING = {
    "byol": {"projector": "16-bn-relu-16", "predictor_width": 16},
    "dino": {"projector": "16-gelu-16", "prototypes": 32},
    "mocov2plus": {"projector": "16-relu-16", "queue": 24},
}


WHO = "somebody-of-this-machine"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USER", WHO)
        patch.setenv("LOGNAME", WHO)
        yield tmp_path_factory.mktemp("averaged")


@pytest.fixture(scope="module")
def runs(place) -> dict[str, Path]:
    """A run of each method that has an averaged network, and one of a method that has none."""
    images = folder(place / "images")
    asked = {name: METHODS[name].Config(**options) for name, options in AVERAGING.items()}
    changes = {"evaluate": False, "length": "6it", "lr": 0.1, "views": 2}
    made = {k: pretrain(config(images, place, name=k, method=k, objective=o, **changes)).run for k, o in asked.items()}
    return made | {"frossl": pretrain(config(images, place, name="frossl", **changes)).run}


@pytest.mark.parametrize("method", AVERAGING)
def test_features_of_the_averaged_encoder_are_those_of_the_moving_average_to_the_bit(runs, method):
    encoder, spec = load_encoder(encoder_of(runs[method], "averaged"))
    learner = load_checkpoint(newest_checkpoint(runs[method]))["learner"]
    target = spec.build()
    kept = {name.removeprefix("target."): x for name, x in learner.items() if name.startswith("target.")}
    target.load_state_dict(kept)
    x = torch.randn(4, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = encoder(x)
        assert torch.equal(features, target.eval()(x))
        assert not torch.equal(features, load_encoder(encoder_of(runs[method]))[0](x))
    assert int(kept["bn1.num_batches_tracked"]) == 6


def test_the_averaged_encoder_is_an_arm_beside_the_trained_one_which_keeps_its_values(runs):
    run = runs["byol"]
    before = evaluate_run(run, protocols=("rank", "knn")).arms
    got = evaluate_run(run, weights="averaged", protocols=("rank", "knn")).arms
    assert got["pretrained"] == before["pretrained"]
    assert got["averaged"]["effective_rank"] != before["pretrained"]["effective_rank"]
    (kept,) = json.loads((run / "evaluation.json").read_text()).values()
    assert kept["arms"] == got


def test_a_method_without_average_names_those_that_have_one(runs, frossl, tmp_path):
    for asked in (("evaluate", runs["frossl"]), ("export", runs["frossl"], tmp_path / "e.safetensors")):
        code, said = frossl(*asked, "--weights", "averaged")
        assert code == 2
        assert re.search("frossl, has no averaged network.*byol, dino, mocov2plus", said)
    assert not (tmp_path / "e.safetensors").exists()
    with pytest.raises(UserError, match="no averaged network"):
        evaluate_run(runs["frossl"], weights="averaged")


@pytest.mark.parametrize("weights", ["online", "averaged"])
def test_an_export_holds_these_weights_and_no_path_or_name(runs, frossl, tmp_path, weights):
    run, output = runs["dino"], tmp_path / "e.safetensors"
    code, said = frossl("export", run, output, "--weights", weights)
    assert code == 0
    assert ("averaged weights" in said) == (weights == "averaged")
    wanted, got = load_file(encoder_of(run, weights)), load_file(output)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    private = {str(run.parent), run.parent.name, str(Path.home()), WHO, str(tmp_path)}
    for file in (output, encoder_of(run), encoder_of(run, "averaged")):
        content = file.read_bytes()
        header = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
        assert not [word for word in private if word in header]


def test_a_run_that_kept_no_average_says_how_to_get_it(runs, tmp_path):
    averaged = encoder_of(runs["mocov2plus"], "averaged")
    content = averaged.read_bytes()
    averaged.unlink()
    with pytest.raises(UserError, match=r"no encoder yet.*--resume"):
        export_encoder(runs["mocov2plus"], tmp_path / "e.safetensors", weights="averaged")
    pretrain(read_run(runs["mocov2plus"])[0], resume=runs["mocov2plus"])
    assert averaged.read_bytes() == content
