"""Every recipe builds, trains two steps on synthetic images, and says what it is."""

import dataclasses
import json
import re
from dataclasses import replace

import pytest
import torch

import frossl.train.pretrain as pretraining
from frossl.commands.bench import noise
from frossl.core.length import Length
from frossl.data import DATASETS, Dataset, Split
from frossl.methods import METHODS
from frossl.recipes import RECIPES
from frossl.runs.config import Config
from frossl.runs.directory import read_run
from frossl.runs.log import read_rows
from frossl.train.loop import build
from frossl.train.plan import describe, make_plan
from frossl.views.recipes import VIEWS, with_views

pytestmark = pytest.mark.usefixtures("no_reports")

ALL = {name: RECIPES[name]() for name in RECIPES}
PAPER = {name: config for name, config in ALL.items() if name.startswith("paper-")}
ABLATIONS = {name: config for name, config in ALL.items() if name.startswith("ablation-")}

# Widths and lengths of objectives, made small. W-MSE needs more images than its projection is wide.
SMALL = {"predictor_width": 8, "prototypes": 8, "queue": 16, "directions": 8, "sub_batch": 8}


def small(config: Config, out) -> Config:
    """The same run with everything that costs time cut down."""
    objective = config.objective
    given = {field.name: getattr(objective, field.name) for field in dataclasses.fields(objective)}
    changes = {name: value for name, value in SMALL.items() if given.get(name)}
    sizes = {group.size for group in VIEWS[config.view_recipe]}
    return replace(
        config,
        objective=replace(objective, projector=re.sub(r"\d+", "6", objective.projector), **changes),
        # Not 4: on CPUs without AVX-512, torch 2.14's 1x1 convolutions of stride 2 then write beyond their memory.
        backbone_options='{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}',
        views=min(config.views or 4, 4) if len(sizes) == 1 else config.views,
        length="2it",
        data_dir=out / "data",
        warmup="50%",
        batch=8,
        size=16,
        monitor_every="100%",
        log_every=1,
        evaluate=False,
        device="cpu",
        out=out,
    )


def made(config: Config) -> Dataset:
    """Noise in the shape of the data of ``config``."""
    record = DATASETS[config.data]
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, record.channels, 16, 16), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(count) % 2)

    size = (16, 16)
    return Dataset(
        config.data, split(16), split(8), ("a", "b"), record.channels, record.mean, record.std, size, size, size, "made"
    )


def covering(configs: dict[str, Config]) -> list[str]:
    """Names of recipes with every method, recipe of views, optimiser, kind of data and ablation among them."""
    seen, chosen = set(), []
    for name, config in configs.items():
        new = {config.method, config.view_recipe, config.optimizer, DATASETS[config.data].channels}
        new |= {name} if name in ABLATIONS else set()
        if new - seen:
            chosen.append(name)
            seen |= new
    return chosen


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_is_planned_and_built_and_comes_back_from_json(name, tmp_path):
    given = small(ALL[name], tmp_path)
    data = made(given)
    learner, plan = build(given, data)
    assert sum(group.count for group in plan.recipe) == plan.views
    assert type(learner.method) is METHODS[given.method]
    (tmp_path / "config.json").write_text(json.dumps(describe(plan, Length.parse(given.length), data)))
    assert read_run(tmp_path) == (plan.config, plan.recipe)


@pytest.mark.filterwarnings("ignore:view_scaling='pairs'")
@pytest.mark.parametrize("name", covering(ALL))
def test_a_recipe_trains_two_steps_on_synthetic_images(name, tmp_path, monkeypatch):
    config = ALL[name]
    monkeypatch.setattr(pretraining, "find_run_data", lambda *_: made(config))
    given = small(config, tmp_path)
    run = pretraining.pretrain(given).run
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert len(rows) == 2
    saved, _ = read_run(run)
    assert saved == make_plan(given, made(config)).config


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_says_what_it_is_in_one_line(name):
    config, doc = ALL[name], RECIPES[name].__doc__
    assert config.recipe == name
    assert config.view_recipe in VIEWS
    assert doc
    assert "\n" not in doc
    assert doc.endswith(".")
    assert isinstance(config.objective, METHODS[config.method].Config)


def spoken(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())


@pytest.mark.parametrize("name", PAPER)
def test_names_data_and_descriptions_of_the_papers_recipes_agree(name):
    config, doc = PAPER[name], RECIPES[name].__doc__ or ""
    assert name in (f"paper-{config.data}-{config.method}", f"paper-{config.data}-{config.method}-{config.views}views")
    method, _, rest = doc.partition(" on ")
    place, length = re.split("[;.]", rest)[0].split(", ")
    assert spoken(method.replace("+", "plus")).startswith(spoken(config.method))
    assert spoken(place) == spoken(config.data)
    assert length == f"{config.length.removesuffix('ep')} epochs"


# What the public configurations have, from a list of its own: optimiser, rate, weight decay, hidden and output width,
# views, images per step, epochs.
FILES = """
cifar frossl     lars 0.3  1e-4 2048 1024 symmetric      256 1000
cifar mmcr       lars 0.3  1e-4 2048 512  symmetric-weak 256 1000
cifar ivne       lars 0.3  1e-4 2048 1024 symmetric      256 1000
cifar barlow     lars 0.3  1e-4 2048 2048 asymmetric     256 1000
cifar vicreg     lars 0.3  1e-4 2048 2048 vicreg         256 1000
cifar simclr     lars 0.3  1e-4 2048 128  symmetric      256 1000
cifar byol       lars 1.0  1e-5 4096 256  asymmetric     256 1000
cifar simsiam    sgd  0.5  1e-5 2048 2048 symmetric-weak 256 1000
cifar mocov2plus sgd  0.3  1e-4 2048 256  symmetric-weak 256 1000
cifar swav       lars 0.6  1e-6 2048 128  symmetric      256 1000
cifar dino       lars 0.3  1e-6 2048 256  asymmetric     256 1000
cifar wmse       adam 2e-3 1e-6 1024 64   wmse           256 1000
cifar empssl     lars 0.3  1e-4 4096 512  emp            100 30
cifar emp_frossl lars 0.3  1e-4 4096 512  emp            100 30
cifar10  corinfomax lars 0.3 1e-4 2048 64  asymmetric 256 1000
cifar100 corinfomax lars 0.3 1e-4 4096 128 asymmetric 256 1000
stl10 frossl        lars 0.1 1e-4 2048 1024 symmetric-weak 256 500
stl10 frossl-4views lars 0.1 1e-4 2048 1024 symmetric-weak 256 500
stl10 frossl-8views lars 0.1 1e-4 2048 1024 symmetric-weak 256 500
stl10 mmcr          lars 0.3 1e-4 2048 512  symmetric      256 500
stl10 mmcr-4views   lars 0.3 1e-4 2048 512  symmetric      256 500
stl10 mmcr-8views   lars 0.3 1e-4 2048 512  symmetric      256 500
stl10 ivne          lars 0.3 1e-4 2048 1024 symmetric-weak 256 500
stl10 corinfomax    lars 0.5 1e-4 4096 256  symmetric      256 500
stl10 barlow        lars 0.3 1e-4 2048 2048 symmetric      256 500
stl10 vicreg        lars 0.3 1e-4 2048 1024 symmetric      256 500
stl10 simclr        lars 0.3 1e-4 2048 512  symmetric      256 500
stl10 byol          lars 1.0 1e-5 4096 256  symmetric      256 500
stl10 simsiam       sgd  0.5 1e-5 2048 2048 symmetric-weak 256 500
stl10 mocov2plus    lars-original 0.3 1e-4 2048 256 symmetric-weak 256 500
stl10 swav          lars 0.6 1e-6 2048 128  symmetric      256 500
stl10 dino          lars 0.3 1e-6 2048 256  asymmetric     256 500
stl10 wmse          lars-original 0.1 1e-4 1024 128 symmetric 256 500
stl10 empssl        lars 0.3 1e-4 4096 512  emp            256 30
tiny-imagenet frossl     lars 0.3 1e-4 2048 1024 asymmetric 512 800
tiny-imagenet mmcr       lars 0.3 1e-4 2048 1024 asymmetric 512 800
tiny-imagenet frossl-4views lars 0.3 1e-4 2048 1024 symmetric 512 800
tiny-imagenet frossl-8views lars 0.3 1e-4 2048 1024 symmetric 512 800
tiny-imagenet mmcr-4views   lars 0.3 1e-4 2048 1024 symmetric 512 800
tiny-imagenet mmcr-8views   lars 0.3 1e-4 2048 1024 symmetric 512 800
tiny-imagenet ivne       lars 0.3 1e-4 2048 1024 asymmetric 512 800
tiny-imagenet corinfomax lars 0.5 1e-4 2048 64   asymmetric 512 800
tiny-imagenet barlow     lars 0.3 1e-4 2048 2048 asymmetric 512 800
tiny-imagenet vicreg     lars 0.3 1e-4 2048 1024 asymmetric 512 800
tiny-imagenet simclr     lars 0.3 1e-4 4096 512  asymmetric 512 800
tiny-imagenet byol       lars 1.0 1e-5 4096 256  asymmetric 512 800
tiny-imagenet simsiam    sgd  0.5 1e-5 2048 2048 asymmetric 512 800
tiny-imagenet mocov2plus lars-original 0.3 1e-4 2048 256 asymmetric 512 800
tiny-imagenet swav       lars 0.6 1e-6 2048 128  asymmetric 512 800
tiny-imagenet dino       lars 0.3 1e-6 2048 256  asymmetric 512 800
tiny-imagenet wmse       lars-original 0.1 1e-4 1024 128 asymmetric 512 800
imagenet100 frossl     lars 0.3 1e-4 2048 1024 symmetric      256 400
imagenet100 mmcr       lars 0.3 1e-4 2048 512  symmetric      256 400
imagenet100 frossl-4views lars 0.3 1e-4 2048 1024 symmetric   256 400
imagenet100 frossl-8views lars 0.3 1e-4 2048 1024 symmetric   256 400
imagenet100 mmcr-4views   lars 0.3 1e-4 2048 512  symmetric   256 400
imagenet100 mmcr-8views   lars 0.3 1e-4 2048 512  symmetric   256 400
imagenet100 ivne       lars 0.3 1e-4 2048 1024 symmetric      256 400
imagenet100 corinfomax lars 0.5 1e-4 4096 256  symmetric      256 400
imagenet100 barlow     lars 0.3 1e-4 2048 2048 asymmetric     256 400
imagenet100 vicreg     lars 0.3 1e-4 2048 2048 vicreg         256 400
imagenet100 simclr     lars 0.3 1e-4 4096 512  symmetric      256 400
imagenet100 byol       lars 0.5 1e-6 4096 256  asymmetric     256 400
imagenet100 simsiam    sgd  0.5 1e-5 2048 2048 asymmetric     256 400
imagenet100 mocov2plus sgd  0.3 1e-4 2048 256  symmetric-weak 256 400
imagenet100 swav       lars 0.6 1e-6 2048 128  symmetric      256 400
imagenet100 dino       lars 0.3 1e-6 2048 256  asymmetric     256 400
imagenet100 wmse       adam 2e-3 1e-6 1024 64  wmse-large     256 400
"""


def test_the_table_is_that_of_the_public_configurations():
    wanted = {}
    for line in FILES.strip().splitlines():
        data, method, optimizer, lr, decay, hidden, width, views, batch, epochs = line.split()
        for place in ("cifar10", "cifar100") if data == "cifar" else (data,):
            numbers = (float(lr), float(decay), int(hidden), int(width), int(batch), f"{epochs}ep")
            prefix = {"cifar10": "cifar", "cifar100": "cifar", "stl10": "stl10", "tiny-imagenet": "tiny"}
            recipe = f"{prefix.get(place, 'imagenet')}-{views}"
            wanted[f"paper-{place}-{method}"] = (optimizer, *numbers, recipe)
    got = {}
    for name, c in PAPER.items():
        widths = [int(width) for width in re.findall(r"\d+", c.objective.projector)]
        numbers = (c.lr, c.weight_decay, widths[0], widths[-1], c.batch, c.length)
        got[name] = (c.optimizer, *numbers, c.view_recipe)
    assert got == wanted


def options(method: str, name: str) -> dict[str, object]:
    """An option of ``method`` in all of the paper's recipes for it, by data."""
    return {c.data: getattr(c.objective, name) for c in PAPER.values() if c.method == method and c.views is None}


def test_options_that_differ_between_data_sets_are_those_of_the_files():
    assert options("frossl", "invariance_weight") == {
        "cifar10": 1.0, "cifar100": 1.0, "stl10": 1.4, "tiny-imagenet": 1.0, "imagenet100": 1.0
    }  # fmt: skip
    assert options("simclr", "temperature") == {
        "cifar10": 0.3, "cifar100": 0.3, "stl10": 0.5, "tiny-imagenet": 0.5, "imagenet100": 0.2
    }  # fmt: skip
    assert options("corinfomax", "invariance_weight") == {
        "cifar10": 250, "cifar100": 1000, "stl10": 500, "tiny-imagenet": 500, "imagenet100": 500
    }  # fmt: skip
    assert options("barlow", "scale") == {
        "cifar10": 0.1, "cifar100": 0.1, "stl10": 0.1, "tiny-imagenet": 0.005, "imagenet100": 0.1
    }  # fmt: skip
    assert options("wmse", "sub_batch") == {
        "cifar10": 128, "cifar100": 128, "stl10": 256, "tiny-imagenet": 256, "imagenet100": 128
    }  # fmt: skip
    assert {data for data, epochs in options("dino", "teacher_warmup").items() if epochs} == {"imagenet100"}
    assert {data for data, queue in options("mocov2plus", "queue").items() if queue != 32768} == {"imagenet100"}
    assert {data for data, width in options("byol", "predictor_width").items() if width != 4096} == {"imagenet100"}


def test_what_is_wrong_in_the_public_files_is_right_here():
    assert set(options("mocov2plus", "momentum").values()) == {0.99}, "at 1 the averaged network never moves"
    assert set(options("mocov2plus", "final_momentum").values()) == {0.999}
    for name, config in PAPER.items():
        recipe = VIEWS[config.view_recipe]
        many = config.method in ("empssl", "emp_frossl") or name.endswith("views")
        views = sum(group.count for group in (with_views(recipe, config.views) if config.views else recipe))
        assert (views == 2) is not many, f"{name}: STL-10's file asks for 8, W-MSE's for 6 small ones that are not used"
        assert all(group.scale != (1.0, 1.0) for group in recipe), f"{name}: CIFAR's file has no random crop"
        assert name.startswith(f"paper-{config.data}-"), f"{name}: files for one data set name another"
    for name in ("paper-stl10-mocov2plus", "paper-cifar100-swav", "paper-stl10-dino", "paper-imagenet100-wmse"):
        assert "corrected" in (RECIPES[name].__doc__ or "")


def test_recipes_of_many_views_have_the_weights_and_the_scaling_that_are_known():
    """The invariance weight of FroSSL means something only with its scaling; of MMCR there is no option at all."""
    many = {name: config for name, config in PAPER.items() if config.views}
    assert {(c.data, c.method, c.views) for c in many.values()} == {
        (data, method, views)
        for data in ("stl10", "tiny-imagenet", "imagenet100")
        for method in ("frossl", "mmcr")
        for views in (4, 8)
    }
    weights = {"stl10": 2.0, "tiny-imagenet": 1.4, "imagenet100": 2.0}
    for name, config in many.items():
        assert f"; {config.views} views" in (RECIPES[name].__doc__ or "")
        if config.method == "frossl":
            objective = config.objective
            assert (objective.invariance_weight, objective.view_scaling) == (weights[config.data], "mean")
            assert objective.centre


@pytest.mark.parametrize(
    ("views", "frossl", "mmcr"), [("", "87.3", "84.3"), ("-4views", "90.0", "88.2"), ("-8views", "90.9", "90.3")]
)
def test_what_was_published_for_each_number_of_views_is_said(views, frossl, mmcr):
    for method, published in (("frossl", frossl), ("mmcr", mmcr)):
        assert f"published {published} %" in (RECIPES[f"paper-stl10-{method}{views}"].__doc__ or "")


def test_warm_ups_are_those_of_the_files():
    assert {config.warmup for config in PAPER.values()} == {"10ep", "0ep"}
    assert {name for name, config in PAPER.items() if config.warmup == "0ep"} == {
        "paper-cifar10-empssl", "paper-cifar100-empssl", "paper-stl10-empssl", "paper-cifar10-emp_frossl",
        "paper-cifar100-emp_frossl", "paper-stl10-wmse", "paper-tiny-imagenet-wmse",
    }  # fmt: skip


def differences(one: object, other: object) -> set[str]:
    names = {field.name for field in dataclasses.fields(one)}  # type: ignore[arg-type]
    return {name for name in names if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize(
    ("what", "changed"),
    {
        "none": set(),
        "log-off": {"log"},
        "centre-off": {"centre"},
        "normalise-sample": {"normalise", "invariance_weight"},
        "kernel-gaussian": {"kernel"},
        "legacy": {"invariance_weight", "view_scaling", "batch_norm"},
        "4views": {"views"},
        "4views-pairs": {"views", "view_scaling"},
        "4views-mean": {"views", "view_scaling"},
        "weight-quarter": {"invariance_weight"},
        "weight-half": {"invariance_weight"},
        "weight-double": {"invariance_weight"},
        "weight-fourfold": {"invariance_weight"},
        "width-128": {"projector"},
        "width-256": {"projector"},
        "width-512": {"projector"},
        "width-2048": {"projector"},
    }.items(),
)
def test_an_ablation_changes_what_it_says_and_nothing_else(what, changed):
    base, config = ALL["ablation-none"], ABLATIONS[f"ablation-{what}"]
    got = differences(base, config) | differences(base.objective, config.objective)
    assert got - {"recipe", "objective"} == changed


def test_ablations_start_from_the_recipe_for_two_cores_and_are_all_different():
    assert differences(ALL["ablation-none"], ALL["cifar10-cpu"]) == {"recipe", "length"}
    assert len({repr(replace(config, recipe="")) for config in ABLATIONS.values()}) == len(ABLATIONS) == 17


@pytest.mark.parametrize(("name", "side"), [("fashion-mnist-cpu", 28), ("cifar10-cpu", 32)])
def test_no_convolution_of_the_two_core_recipes_gets_a_map_narrower_than_its_stride(name, side):
    """So bf16 is theirs throughout (frossl.nn.convolution)."""
    data = noise(128, side)
    learner, plan = build(ALL[name], data)
    seen = []
    for module in learner.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_pre_hook(lambda conv, x: seen.append((x[0].shape[-1], conv.stride[-1])))
    for size in {plan.spec.size, *(group.size for group in plan.recipe)}:
        learner.backbone(torch.zeros(2, plan.spec.channels, size, size))
    assert {width for width, _ in seen} == {side, 16 * side // 32, 8 * side // 32, 4, 2}
    assert all(width >= stride for width, stride in seen)
