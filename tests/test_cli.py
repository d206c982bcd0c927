"""The command line as a new user meets it: every wrong turn has a message, and code 2."""

import dataclasses
import json
import os
import re
import signal
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

import frossl.runs.data as run_data
from frossl.cli import main
from frossl.data import DATASETS
from frossl.methods import METHODS
from frossl.nn.encoder import load_encoder
from frossl.runs.config import Config
from frossl.runs.log import read_rows
from frossl.train.pretrain import pretrain
from frossl.train.step import Stepper

pytestmark = pytest.mark.usefixtures("no_reports", "two_penalties")

TINY = ["--backbone-options", '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}', "--projector", "16-bn-relu-16"]


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    image = Image.fromarray(noise.numpy())
    if mode == "I;16":
        image = Image.fromarray(noise[:, :, 0].to(torch.int32).mul(257).numpy().astype("uint16"))
    else:
        image = image.convert(mode)
    image.save(path)
    return path


def folder(root: Path, count: int = 24, classes: int = 2, **how) -> Path:
    for i in range(count):
        picture(root / (f"class{i % classes}" if classes else "") / f"{i:02d}.png", seed=i, **how)
    return root


def test_without_a_command_or_with_a_wrong_one_it_says_what_there_is(frossl):
    assert frossl()[0] == 2
    code, said = frossl("pretain", "x")
    assert code == 2
    assert "mean 'pretrain'" in said


def test_the_overview_fits_a_narrow_terminal(monkeypatch, capsys):
    said = {}
    for columns in (80, 1000):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            main(["--help"])
        said[columns] = capsys.readouterr().out
    assert said[80] == said[1000]


@pytest.mark.parametrize("what", ["methods", "data", "recipes", "metrics"])
def test_list_names_what_is_registered(frossl, what):
    code, said = frossl("list", what)
    expected = {"methods": "frossl", "data": "fashion-mnist", "recipes": "fashion-mnist-cpu", "metrics": "knn"}
    assert code == 0
    assert expected[what] in said


def test_list_says_which_commands_measure_a_metric(frossl):
    said = frossl("list", "metrics")[1]
    assert re.search(r"\bkNN: [^;]*;[^;]*; default of frossl evaluate and frossl compare", said)
    assert re.search(r"\bLiDAR: [^;]*;[^;]*; default of frossl compare", said)
    assert re.search(r"\bridge: least [^;]*;[^;]*;[^;]*; only by name", said)


def test_what_is_given_without_a_flag_is_called_by_its_name(frossl):
    wanted = {
        "pretrain": "[OPTIONS] DATA",
        "evaluate": "[OPTIONS] RUN",
        "report": "[-h] RUN...",
        "export": "RUN FILE",
    }
    wanted["publish"] = "RUN --to PLACE"
    wanted["data"] = "NAME SOURCE"
    for command, names in wanted.items():
        assert f"{names} " in frossl(command, "--help")[1]
    assert "DATA" in frossl("pretrain")[1]


def test_help_explains_every_flag(frossl):
    code, said = frossl("pretrain", "--help")
    assert code == 0
    for flag in ("--method", "--views", "--length", "--invariance-weight", "--resume", "--backbone"):
        assert flag in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--veiws", "4"], "--views"),
        (["--method", "frosll"], "mean 'frossl' or"),
        (["--recipe", "fashion-mnist-cpuu"], "mean 'fashion-mnist-cpu'[?]"),
        (["--backbone", "resnet81"], "Did you mean '"),
        (["--view-recipe", "natrual"], "mean 'natural'[?]"),
        (["--length", "20 epochs"], "is not a length"),
        (["--length", "0ep"], "more than nothing"),
        (["--batch", "1000"], "batch of 1000 .*--batch 2"),
        (["--batch", "1"], "at least 2"),
        (["--views", "1"], "at least 2"),
        (["--projector", "1024-silu"], "silu.*bn.*relu"),
        (["--backbone-options", "channels=3"], "is not JSON"),
        (["--backbone-options", '{"chanels": [8]}'], "could not build"),
        (["--stem", "cifar", "--backbone", "vit_tiny_patch16_224"], "no conv1/maxpool stem"),
        (["--warmup", "10min", "--length", "2ep"], "--warmup 10min .*2ep"),
        (["--warmup", "200%", "--length", "2it"], "--warmup 200% is longer"),
        (["--monitor-every", "3it", "--length", "2it"], "--monitor-every 3it is longer"),
        (["--backbone", "resnet81"], "timm.list_models"),
        (["--recipe", "nothing"], "see frossl list"),
        (["--seed", "-1"], "--seed .*at least 0.*-1"),
        (["--workers", "-1"], "--workers .*at least 0.*-1"),
        (["--size", "0"], "--size .*at least 1.*0"),
        (["--lr", "0"], "--lr .*more than 0.* 0"),
        (["--lr", "nan"], "--lr .*more than 0.*nan"),
        (["--weight-decay", "-1"], "--weight-decay .*at least 0.*-1"),
        (["--clip", "0"], "--clip .*more than 0.*0[.]0"),
        (["--clip", "nan"], "--clip .*more than 0.*nan"),
        (["--device", "cuda"] if not torch.cuda.is_available() else ["--device", "tpu"], "cuda"),
    ],
)
def test_a_wrong_option_is_explained_and_leaves_nothing_behind(frossl, tmp_path, argv, says):
    images = folder(tmp_path / "images")
    code, said = frossl("pretrain", images, *argv)
    assert code == 2
    assert re.search(says, said)
    assert "Traceback" not in said
    assert not list((tmp_path / "runs").glob("*"))


def test_a_name_that_is_neither_data_nor_folder(frossl):
    code, said = frossl("pretrain", "cifar01")
    assert code == 2
    assert "folder 'cifar01'" in said
    assert "cifar10" in said


def test_data_sets_are_prepared_and_then_opened_by_their_name(frossl, tmp_path):
    for split in ("train", "val"):
        for i, wnid in enumerate(DATASETS["imagenet100"].ids()):
            picture(tmp_path / "imagenet" / split / wnid / "0.JPEG", seed=i)
    code, said = frossl("data", "prepare", "imagenet100", "imagenet")
    assert code == 0
    assert "100 images of 100 classes, 1 a class, to train on" in said
    assert "(the ImageNet-100 list of CMC and solo-learn)" in said
    assert said.endswith("Use it: frossl pretrain imagenet100")
    assert frossl("views", "imagenet100")[0] == 0
    code, said = frossl("data", "prepare", "imagenet100", "imagenet")
    assert code == 2
    assert "is there already" in said
    code, said = frossl("data", "prpare", "imagenet100", "imagenet")
    assert code == 2
    assert "mean 'prepare'?" in said


def test_an_empty_folder_and_a_folder_of_text(frossl, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.txt").write_text("words")
    for name in ("empty", "texts"):
        code, said = frossl("pretrain", tmp_path / name)
        assert code == 2
        assert name in said
        assert "Traceback" not in said
    assert ".txt" in said


def test_an_output_place_that_cannot_be_written_to(frossl, tmp_path):
    (tmp_path / "file").write_text("")
    code, said = frossl("pretrain", folder(tmp_path / "images"), "--out", tmp_path / "file")
    assert code == 2
    assert f"run directory {tmp_path / 'file'}" in said


@pytest.mark.usefixtures("reports")
def test_a_folder_from_pretraining_to_export(frossl, tmp_path):
    images = folder(tmp_path / "images", count=40)
    whole = picture(tmp_path / "x.jpg", size=(64, 64)).read_bytes()
    (images / "class0" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    code, said = frossl("pretrain", images, *TINY, "--length", "2ep", "--name", "r", "--batch", "8", "--size", "16")
    assert code == 0
    assert "class0, class1" in said
    assert "skipped 1" in said
    assert "cut.jpg" in said
    for word in ("pretrained", "untrained", "raw pixels", "kNN", "10 labels", "Pretraining"):
        assert word in said
    arms = json.loads((tmp_path / "runs/r/evaluation.json").read_text())["images"]["arms"]
    assert arms.keys() == {"pretrained", "untrained", "raw pixels", "largest class"}

    code, said = frossl("evaluate", "runs/r", "--protocol", "knn", "rank")
    assert code == 0
    assert "kNN" in said
    code, said = frossl("evaluate", "runs/r", "--protocol")
    assert code == 2
    assert re.search("--protocol.*: knn linear", said)
    code, said = frossl("evaluate", "runs/r", "--protocol", "kn")
    assert code == 2
    assert "mean 'knn'?" in said

    code, said = frossl("pretrain", "--resume", "runs/r", "--batch", "4")
    assert code == 2
    assert "--batch" in said
    code, said = frossl("evaluate", "runs/q")
    assert code == 2
    assert "Runs beside it: r" in said


def test_a_resumed_finished_run_changes_nothing(frossl, tmp_path):
    images = folder(tmp_path / "images")
    frossl("pretrain", images, *TINY, "--length", "3it", "--name", "r", "--batch", "8", "--no-evaluate")
    before = (tmp_path / "runs/r/encoder.safetensors").read_bytes()
    code, said = frossl("pretrain", "--resume", "runs/r", "--no-evaluate")
    assert code == 0
    assert "from step 3" in said
    assert (tmp_path / "runs/r/encoder.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["--method", "vicreg"], "; --method would"),
        (["--invariance-weight", "3", "--seed", "1"], "; --seed, --invariance-weight would"),
        (["images", "--batch", "4"], "; --batch would"),
    ],
)
def test_a_resumed_run_keeps_its_configuration(frossl, tmp_path, argv, names):
    images = folder(tmp_path / "images")
    frossl("pretrain", images, *TINY, "--length", "1it", "--name", "r", "--batch", "8", "--no-evaluate")
    code, said = frossl("pretrain", "--resume", "runs/r", *argv)
    assert code == 2
    assert names in said


def test_a_run_of_a_module_of_ones_own_is_resumed_from_python(frossl, tmp_path):
    mine = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    asked = Config(data=str(folder(tmp_path / "images")), length="1it", batch=8, name="own", evaluate=False)
    outcome = pretrain(asked, backbone=mine)
    before = sorted(outcome.run.rglob("*"))
    code, said = frossl("pretrain", "--resume", outcome.run)
    assert code == 2
    assert re.search("Sequential.*from Python", said)
    for command in (
        ["evaluate", outcome.run],
        ["evaluate", outcome.run, "--arms", "supervised"],
        ["export", outcome.run, "e.safetensors"],
        ["replay", outcome.run],
    ):
        code, said = frossl(*command)
        assert (code, "your own, Sequential" in said) == (2, True), said
    assert sorted(outcome.run.rglob("*")) == before


def test_evaluations_of_a_run_are_kept_together(frossl, tmp_path):
    images = folder(tmp_path / "images", count=40)
    other = folder(tmp_path / "other", count=20)
    frossl("pretrain", images, *TINY, "--length", "1it", "--batch", "8", "--name", "r", "--no-evaluate")
    path = tmp_path / "runs/r/evaluation.json"

    assert frossl("evaluate", "runs/r", "--protocol", "knn", "--device", "cpu")[0] == 0
    first = json.loads(path.read_text())["images"]
    assert first["protocols"].keys() == {"knn"}
    assert frossl("evaluate", "runs/r", "--protocol", "rank")[0] == 0
    both = json.loads(path.read_text())["images"]
    assert both["protocols"].keys() == {"knn", "rank"}
    assert both["arms"].keys() == first["arms"].keys() == {"pretrained", "untrained", "raw pixels", "largest class"}
    for arm, values in first["arms"].items():
        assert both["arms"][arm].items() >= values.items()
    assert both["arms"]["pretrained"].keys() >= {"knn", "effective_rank"}

    assert frossl("evaluate", "runs/r", "--data", other, "--protocol", "knn")[0] == 0
    everything = json.loads(path.read_text())
    assert everything["images"] == both
    assert everything["other"]["protocols"].keys() == {"knn"}
    assert everything["other"]["held_out"] == 2


@pytest.mark.usefixtures("reports")
def test_protocols_of_encoders_the_supervised_arm_and_robustness_from_the_command_line(frossl, tmp_path, monkeypatch):
    monkeypatch.setattr("frossl.evals.finetune.LEAST", 8)
    images = folder(tmp_path / "images", count=40)
    base = ["--length", "2it", "--batch", "8", "--size", "16", "--name", "r", "--no-evaluate"]
    code, said = frossl("pretrain", images, *TINY, *base)
    assert code == 0
    assert "Report runs/r/report.html" in said
    assert "beside the controls" not in (tmp_path / "runs/r/report.html").read_text()
    argv = ("--protocol", "knn", "finetune", "robustness", "--arms", "supervised")
    code, said = frossl("evaluate", "runs/r", *argv)
    assert code == 0
    for words in (
        "with labels, 2 steps",
        "supervised",
        "fine-tuned",
        "kNN: cosine",
        "no colour",
    ):
        assert words in said
    assert re.search(r"supervised: finetune, learning rate 0\.0001 [^:]*: about 1 min", said)
    kept = json.loads((tmp_path / "runs/r/evaluation.json").read_text())["images"]
    assert {"finetune_low", "finetune_rate", "knn_under_gray_low"} <= kept["arms"]["supervised"].keys()
    assert "finetune" not in kept["arms"]["raw pixels"]
    assert "cosine_under_crop_20" in kept["arms"]["raw pixels"]
    code, said = frossl("report", "runs/r")
    page = (tmp_path / "runs/r/report.html").read_text()
    for words in ("beside the controls", "under single augmentations", "fine-tuned", "supervised: same"):
        assert words in page
    code, said = frossl("evaluate", "runs/r", "--protocol", "finetun", "--arms", "supervised")
    assert code == 2
    assert "mean 'finetune'" in said


def test_evaluate_is_told_where_data_are_and_where_to_compute(frossl, tmp_path, monkeypatch):
    images = folder(tmp_path / "images")
    frossl("pretrain", images, *TINY, "--length", "1it", "--batch", "8", "--name", "r", "--no-evaluate")
    opened, places = run_data.open_data, []

    def watched(source, options, **more):
        places.append(options.data_dir)
        return opened(source, options, **more)

    monkeypatch.setattr(run_data, "open_data", watched)
    frossl("evaluate", "runs/r", "--protocol", "rank")
    frossl("evaluate", "runs/r", "--protocol", "rank", "--data-dir", "elsewhere")
    assert places == [Path("data"), Path("elsewhere")]
    if not torch.cuda.is_available():
        code, said = frossl("evaluate", "runs/r", "--device", "cuda")
        assert code == 2
        assert "--device cuda: " in said


PLUG_IN = """
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from frossl.core.types import Loss, MethodSpec, StepContext
from frossl.methods import Method



class Apart(Method):
    '''Views together, images apart.'''

    @dataclass(frozen=True, kw_only=True)
    class Config:
        '''Options.'''

        columns: int = 8
        '''columns of the projection'''

    def __init__(self, config: Config, spec: MethodSpec) -> None:
        super().__init__(spec)
        self.head = nn.Linear(spec.features, config.columns)

    def forward(self, h_VNF: Tensor, context: StepContext) -> Loss:
        z_VND = self.project(self.head, h_VNF)
        terms = {"together": z_VND.var(0).mean(), "apart": (1 - z_VND.var(1)).relu().mean()}
        return Loss(sum(terms.values()), {name: term.detach() for name, term in terms.items()})
"""


PLUG_IN_LOSS = """
from __future__ import annotations

from torch import Tensor

from frossl.core.types import Loss
from frossl.losses.base import embeddings


def pull(z: Tensor, *, strength: float = 2.0, push: bool = True) -> Loss:
    '''Views together, images apart.

    Args:
        z: projections.
        strength: how hard views are drawn together
        push: whether images are pushed apart.
    '''
    z_VND = embeddings(z)
    total = strength * z_VND.var(0).mean() + push * (1 - z_VND.var(1)).relu().mean()
    return Loss(total, {"pull": total.detach()})
"""


def test_a_loss_from_a_file_in_this_directory_trains_and_its_arguments_are_options(frossl, tmp_path):
    images = folder(tmp_path / "images")
    (tmp_path / "plug_in_loss.py").write_text(PLUG_IN_LOSS)
    method = ["--method", "plug_in_loss:pull"]
    said = frossl("pretrain", *method, "--help")[1]
    assert "--strength FLOAT" in said
    assert "how hard views are drawn together" in said
    assert "--push, --no-push" in said
    options = ["--strength", "3", "--no-push", "--projector", "8-relu-8", "--length", "2it", "--no-evaluate"]
    code, _ = frossl("pretrain", images, *method, *options, "--backbone-options", TINY[1], "--name", "r")
    assert code == 0
    objective = json.loads(Path("runs/r/config.json").read_text())["config"]["objective"]
    assert objective == {"projector": "8-relu-8", "strength": 3.0, "push": False}


@pytest.mark.usefixtures("reports")
def test_a_method_from_a_file_in_this_directory_trains_resumes_and_is_evaluated(frossl, tmp_path, monkeypatch):
    images = folder(tmp_path / "images")
    (tmp_path / "plug_in_apart.py").write_text(PLUG_IN)
    base = ["--backbone-options", TINY[1], "--length", "6it", "--batch", "8", "--log-every", "1", "--no-evaluate"]
    base += ["--method", "plug_in_apart:Apart", "--columns", "4"]
    code, said = frossl("pretrain", images, *base, "--name", "whole")
    assert code == 0
    assert "Plan plug_in_apart:Apart, views 2" in said

    take = Stepper.__call__

    def interrupt_at_four(self, batch, step, *rest):
        if step == 4:  # the first three are also taken to measure how long they last
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, batch, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", interrupt_at_four)
        code, said = frossl("pretrain", images, *base)
    assert code == 130
    run = "runs/images-plug_in_apart.Apart"
    assert f"--resume {run}" in said
    assert json.loads((tmp_path / run / "config.json").read_text())["config"]["objective"] == {"columns": 4}
    code, said = frossl("pretrain", "--resume", run)
    assert code == 0
    assert "from step 5" in said
    rows = [read_rows(tmp_path / place / "metrics.jsonl") for place in ("runs/whole", run)]
    whole, resumed = ([(r["step"], r["together"], r["apart"]) for r in part if r["kind"] == "train"] for part in rows)
    assert resumed == whole
    code, said = frossl("evaluate", run, "--protocol", "knn")
    assert code == 0
    assert "pretrained" in said
    code, said = frossl("pretrain", images, "--method", "plug_in_apart:Together")
    assert code == 2
    assert "module:Class" in said


def test_every_look_of_the_monitor_is_printed_with_the_loss_of_its_step(frossl, tmp_path):
    images = folder(tmp_path / "images")  # two are held out, of which the effective rank is always 1
    argv = ["--length", "3it", "--batch", "8", "--no-evaluate", "--name", "r"]
    closely = frossl("pretrain", images, *TINY, *argv, "--log-every", "1")[1]
    rows = [r for r in read_rows(tmp_path / "runs/r/metrics.jsonl") if r["kind"] == "train"]
    sparsely = frossl("pretrain", images, *TINY, *argv[:-1], "s")[1]
    for said in (closely, sparsely):
        for row in rows:
            assert f"step {row['step']}/3" in said
            assert f"loss {row['loss']:.2f} = " in said.split(f"step {row['step']}/3")[1].split("step ")[0]
    assert [r["step"] for r in read_rows(tmp_path / "runs/s/metrics.jsonl") if r["kind"] == "train"] == [1]


@pytest.mark.parametrize(("length", "stands"), [("6it", "step 1 of 6"), ("9min", "step 1 after 0.0")])
def test_a_run_that_was_stopped_says_so_wherever_its_encoder_is_used(frossl, tmp_path, monkeypatch, length, stands):
    images = folder(tmp_path / "my images")
    base = [*TINY, "--length", length, "--batch", "8", "--no-evaluate"]
    take = Stepper.__call__

    def interrupt(self, batch, step, *rest):
        if len(list((tmp_path / "runs").glob("*/config.json"))) == 1:  # not while the time of a step is measured
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, batch, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", interrupt)
        code, said = frossl("pretrain", images, *base)
    assert code == 130
    plan = r"6it: 6 steps, about " if length == "6it" else r"9min: [\d,]+ steps, [\d.e+]+ epochs, about 9 min"
    assert re.search(plan, " ".join(said.split()))
    assert re.search(r"learning rate [\d.e-]+ \(--lr [\d.]+ for a batch of 256\)", " ".join(said.split()))
    again = "frossl pretrain --resume 'runs/my images-frossl'"
    assert again in said
    run = "runs/my images-frossl"
    uses = (["evaluate", run, "--protocol", "rank"], ["export", run, "e.safetensors"])
    for argv in uses:
        code, said = frossl(*argv)
        assert code == 0
        assert re.search(f"{run} is not finished: .*{stands}", said)
        assert again in said
    encoder = (tmp_path / run / "encoder.safetensors").rename(tmp_path / "elsewhere")
    for argv in uses:
        code, said = frossl(*argv)
        assert code == 2
        assert re.search(f"no encoder yet.*{run}.*{stands}", said)
    encoder.rename(tmp_path / run / "encoder.safetensors")
    if length == "6it":
        assert frossl("pretrain", "--resume", run)[0] == 0
        assert "6it: 6 steps, about 0 s" in frossl("pretrain", "--resume", run)[1]
        assert not [argv for argv in uses if "not finished" in frossl(*argv)[1]]


@pytest.mark.usefixtures("reports")
def test_a_folder_without_labels_gets_no_accuracy(frossl, tmp_path):
    images = folder(tmp_path / "images", classes=0)
    code, said = frossl("pretrain", images, *TINY, "--length", "2it", "--batch", "8")
    assert code == 0
    assert "no labels" in said
    assert "no accuracy" in said
    assert "rank" in said
    assert "alignment" in said
    for word in ("kNN", "linear", "raw pixels"):
        assert word not in said.split("Saved")[1].split("rank: ")[0]


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_grey_images_are_read_as_one_channel(frossl, tmp_path, mode):
    images = folder(tmp_path / "images", mode=mode)
    code, said = frossl("pretrain", images, *TINY, "--length", "2it", "--batch", "8", "--no-evaluate", "--name", "r")
    assert code == 0
    assert "grey" in said
    assert load_file(tmp_path / "runs/r/encoder.safetensors")["conv1.weight"].shape[1] == 1


def test_odd_images_among_good_ones_are_used(frossl, tmp_path):
    images = folder(tmp_path / "images")
    picture(images / "class0" / "cmyk.jpg", mode="CMYK")
    picture(images / "class0" / "palette.png", mode="P")
    picture(images / "class1" / "one.png", size=(1, 1))
    picture(images / "class1" / "deep.png", mode="I;16", size=(40, 9))
    code, said = frossl("pretrain", images, *TINY, "--length", "1ep", "--batch", "4", "--size", "16", "--no-evaluate")
    assert code == 0
    assert "1x1 to 40x16" in said
    assert "colour" in said
    assert "skipped" not in said


def test_five_bad_files_of_a_hundred_are_left_out_by_name_and_the_run_completes(frossl, tmp_path):
    images = folder(tmp_path / "images", count=90)
    picture(images / "class0" / "cmyk.jpg", mode="CMYK")
    picture(images / "class0" / "palette.png", mode="P")
    picture(images / "class0" / "grey.png", mode="L")
    picture(images / "class1" / "deep.png", mode="I;16")
    picture(images / "class1" / "moving.gif", mode="P")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (16, 12), "red").save(images / "class1" / "turned.jpg", exif=turned)
    whole = picture(images / "class1" / "whole.jpg", size=(64, 64)).read_bytes()
    bad = {
        "empty.png": b"",
        "cut.jpg": whole[: len(whole) // 2],
        "cut_at_its_end.jpg": whole[:-40],
        "text.jpg": b"not an image",
        "cut.png": (images / "class0" / "palette.png").read_bytes()[:60],
    }
    for name, content in bad.items():
        (images / "class0" / name).write_bytes(content)
    asked = ["pretrain", images, *TINY, "--length", "1ep", "--batch", "8", "--size", "16", "--no-evaluate"]
    rows = []
    for name in ("a", "b"):
        code, said = frossl(*asked, "--name", name, "--log-every", "1")
        assert code == 0
        assert [said.count(file) for file in bad] == [1] * len(bad)
        described = json.loads((tmp_path / "runs" / name / "config.json").read_text())
        assert sum(described["images"]) == 97
        rows.append([r["loss"] for r in read_rows(tmp_path / "runs" / name / "metrics.jsonl") if r["kind"] == "train"])
    assert rows[0] == rows[1]


def test_too_many_unreadable_images_stop_the_run_with_their_list(frossl, tmp_path):
    images = folder(tmp_path / "images")
    for i in range(6):
        (images / "class0" / f"bad{i}.jpg").write_text("not an image")
    code, said = frossl("pretrain", images)
    assert code == 2
    assert "bad0.jpg" in said
    assert "bad5.jpg" in said


VIT = ["--backbone", "vit_tiny_patch16_224", "--backbone-options", '{"depth": 1}']


@pytest.mark.parametrize(
    ("format", "options", "size"),
    [
        ("timm", [], 64),
        ("timm", [], 16),
        ("timm", TINY[:2], 16),
        ("timm", VIT, 32),
        ("torchvision", [], 64),
        ("torchvision", [], 16),
    ],
)
def test_the_printed_lines_load_every_key_elsewhere(frossl, tmp_path, monkeypatch, capsys, format, options, size):
    images = folder(tmp_path / "images", count=12)
    base = ["--method", "random", "--length", "1it", "--batch", "4", "--no-evaluate", "--name", "r", "--size", size]
    assert frossl("pretrain", images, *base, *options)[0] == 0
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["export", "runs/r", "e.safetensors", "--format", format])
    printed = capsys.readouterr().out
    names: dict = {}
    exec("\n".join(line.rstrip() for line in printed.splitlines()), names)
    model = names["model"].eval()
    encoder, spec = load_encoder(tmp_path / "e.safetensors")
    x = torch.randn(2, 3, spec.size, spec.size)
    kind = timm.models.VisionTransformer if options is VIT else timm.models.ResNet
    assert isinstance(model, torchvision.models.ResNet if format == "torchvision" else kind)
    assert spec.size == size
    assert ("img_size=32" in printed) == (options is VIT)
    with torch.no_grad():
        assert torch.allclose(model(x), encoder(x), atol=1e-5)


def test_export_refuses_what_torchvision_has_not(frossl, tmp_path):
    images = folder(tmp_path / "images", count=12)
    frossl("pretrain", images, *TINY, "--length", "1it", "--batch", "4", "--no-evaluate", "--name", "r")
    code, said = frossl("export", "runs/r", "e.safetensors", "--format", "torchvision")
    assert code == 2
    assert "export for timm" in said
    code, said = frossl("export", "runs/r", "e.pth")
    assert code == 2
    assert ".safetensors" in said
    assert not list(tmp_path.glob("e.*"))


def test_a_run_is_published_to_a_folder_and_what_is_missing_is_said(frossl, tmp_path):
    images = folder(tmp_path / "images", count=12)
    frossl("pretrain", images, *TINY, "--length", "1it", "--batch", "4", "--no-evaluate", "--name", "r")
    code, said = frossl("publish", "runs/r", "--to", "out")
    assert code == 0
    for told in ("Published out", "not evaluated", "licence is unknown", "no small stem"):
        assert told in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "SHA256SUMS", "model.safetensors"}
    assert "licence" not in frossl("publish", "runs/r", "--to", "out", "--licence", "mit")[1]
    code, said = frossl("publish", "runs/r", "--to", "images")
    assert (code, "images holds" in said) == (2, True)


def test_what_export_prints_is_python_that_loads_the_encoder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    images = folder(tmp_path / "images", count=12)
    for argv in (
        ["pretrain", str(images), *TINY, "--length", "1it", "--batch", "4", "--no-evaluate", "--name", "r"],
        ["export", "runs/r", "e.safetensors"],
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert not ended.value.code
    loaded: dict = {}
    exec(capsys.readouterr().out, loaded)  # what a user would paste
    x = torch.zeros(1, 3, 32, 32)
    encoder, _ = load_encoder(tmp_path / "runs/r/encoder.safetensors")
    torch.testing.assert_close(loaded["model"].eval()(x), encoder(x))


@pytest.mark.parametrize("scale", [("0.5", "0.2"), ("0", "1"), ("0.5", "1.5"), ("nan", "1")])
def test_impossible_crops_are_refused_by_the_name_of_their_flag(frossl, scale):
    code, said = frossl("pretrain", "anything", "--crop-scale", *scale)
    assert code == 2
    assert f"--crop-scale {' '.join(scale)}: give two shares" in said


def test_names_with_colons_are_printed_as_they_are(frossl):
    _, said = frossl("pretrain", "no:fire:folder")
    assert "'no:fire:folder'" in said


def test_report_and_export_of_what_is_no_run_name_the_runs_that_there_are(frossl, tmp_path):
    for name in ("a", "study/10it/b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    (tmp_path / "runs/study/comparison.json").write_text("{}")
    for command in (["report", "runs/c"], ["export", "runs/c", "e.safetensors"], ["evaluate", "runs/c"]):
        code, said = frossl(*command)
        assert code == 2
        assert re.search(r"runs/c .*config\.json.*: a\.", said)
    code, said = frossl("evaluate", "runs/study")
    assert code == 2
    assert re.search(r"runs/study is a comparison.*: 10it/b\.", said)


@pytest.mark.parametrize("name", METHODS)
def test_the_options_of_every_method_are_flags(frossl, name):
    code, said = frossl("pretrain", "--method", name, "--help")
    assert code == 0
    for field in dataclasses.fields(METHODS[name].Config):
        assert f"--{field.name.replace('_', '-')}" in said


def test_a_loss_whose_argument_is_an_option_of_every_run_is_refused(frossl, tmp_path):
    (tmp_path / "clash.py").write_text("def loss(z, *, lr: float = 1.0, size: int = 3):\n    return z.sum()\n")
    code, said = frossl("pretrain", "x", "--method", "clash:loss")
    assert code == 2
    assert "lr, size" in said


@pytest.mark.parametrize("value", ["inf", "nan", "0"])
def test_a_learning_rate_is_a_number(frossl, value):
    code, said = frossl("pretrain", "x", "--lr", value)
    assert (code, "--lr" in said) == (2, True)
