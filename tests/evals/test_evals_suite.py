from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from small_data import Lazy, dark_and_bright, dataset, gaussian_classes, images, spec
from torch import nn
from torch.nn.functional import one_hot

from frossl.core.types import Features, UserError
from frossl.data.types import Split
from frossl.evals import METRICS, Subject, applicable, defaults, measure, metric
from frossl.evals.extract import Extractor
from frossl.evals.interval import unpack_answers
from frossl.evals.suite import Evaluation, evaluate, untrained_encoder
from frossl.evals.verdict import verdict
from frossl.views.recipes import View

pytestmark = pytest.mark.usefixtures("two_penalties")
RECIPE = (View(count=2, size=16),)
PROTOCOLS = defaults("evaluate")
OF_FEATURES = [name for name, m in METRICS.items() if not m.of_encoder]
OF_CLASSES = [name for name in OF_FEATURES if METRICS[name].needs_labels and METRICS[name].targets == "classes"]
OF_ENCODERS = [name for name, m in METRICS.items() if m.of_encoder]


def fitting(name: str, features: Features) -> Features:
    """``features`` with labels of the kind that a metric needs, made from classes."""
    made = {"classes": lambda y: y, "values": lambda y: y + 0.5, "multilabel": lambda y: one_hot(y, 3)}
    turned = [made[METRICS[name].targets](y) for y in (features.train_labels, features.test_labels)]
    classes = features.classes if METRICS[name].targets == "classes" else ()
    return replace(features, train_labels=turned[0], test_labels=turned[1], classes=classes)


def evaluation(held_out: int = 1000, **arms: dict[str, float]) -> Evaluation:
    return Evaluation({name.replace("_", " "): values for name, values in arms.items()}, {}, held_out)


def gains(said: str) -> dict[str, tuple[float, bool]]:
    """Points over the better control by figure as a verdict tells them, and whether they are clear."""
    found = re.findall(r"[,;] ([\w -]+) ([+-][\d.]+) points(, within noise)?", said)
    return {name: (float(points), not noise) for name, points, noise in found}


def head(said: str) -> list[str]:
    """What the first part of a verdict says of pretraining."""
    words = ("helped", "in part", "no clear difference", "harm", "fell short")
    return [word for word in words if word in said.partition(":")[0]]


def scores(knn: float, linear: float, few: float, std: float = 0.01) -> dict[str, float]:
    return {"knn": knn, "linear": linear, "linear_10": few, "linear_10_std": std, "effective_rank": 9.0}


def test_a_clear_gain_is_said_against_the_better_control():
    got = evaluation(
        pretrained=scores(0.8, 0.9, 0.7), untrained=scores(0.5, 0.6, 0.4), raw_pixels=scores(0.6, 0.5, 0.3)
    )
    assert head(verdict(got)) == ["helped"]
    assert gains(verdict(got)) == {"kNN": (20.0, True), "linear": (30.0, True), "10 labels": (30.0, True)}


def test_small_differences_are_said_to_be_within_noise():
    got = evaluation(100, pretrained=scores(0.52, 0.48, 0.5, 0.05), untrained=scores(0.5, 0.5, 0.47, 0.05))
    assert head(verdict(got)) == ["no clear difference"]
    assert gains(verdict(got)) == {"kNN": (2.0, False), "linear": (-2.0, False), "10 labels": (3.0, False)}


def test_the_same_difference_is_clear_on_enough_images():
    arms = {"pretrained": {"knn": 0.52}, "untrained": {"knn": 0.5}}
    assert "within noise" in verdict(evaluation(4000, **arms))  # two standard errors of the difference: 2.2 points
    assert head(verdict(evaluation(6000, **arms))) == ["helped"]  # 1.8 points


def test_four_images_settle_nothing():
    arms = {"pretrained": {"knn": 0.25}, "raw_pixels": {"knn": 1.0}}
    assert gains(verdict(evaluation(4, **arms))) == {"kNN": (-75.0, False)}
    assert head(verdict(evaluation(40, **arms))) == ["fell short"]


@pytest.mark.parametrize(("std", "clear"), [(0.015, True), (0.03, False)])
def test_the_noise_of_few_labels_is_that_of_the_draws_and_of_the_held_out_images(std, clear):
    """Two standard errors of the difference: 2.6 points at a deviation of 1.5 over five draws, 4.2 at 3."""
    pretrained = {"linear_10": 0.53, "linear_10_std": std}
    got = verdict(evaluation(6000, pretrained=pretrained, untrained={"linear_10": 0.5}))
    assert (head(got) == ["helped"]) is clear
    assert gains(got) == {"10 labels": (3.0, clear)}


@pytest.mark.parametrize(("held_out", "pretrained", "control"), [(24, 1.0, 0.9), (2, 1.0, 0.0)])
def test_a_gain_on_few_images_is_within_noise_however_sure_one_arm_looks(held_out, pretrained, control):
    got = verdict(evaluation(held_out, pretrained={"knn": pretrained}, untrained={"knn": control}))
    assert head(got) == ["no clear difference"]
    assert head(verdict(evaluation(10_000, pretrained={"knn": 1.0}, untrained={"knn": 0.9}))) == ["helped"]


def test_harm_is_said():
    got = evaluation(
        pretrained=scores(0.4, 0.5, 0.3), untrained=scores(0.5, 0.5, 0.4), raw_pixels=scores(0.3, 0.6, 0.3)
    )
    assert head(verdict(got)) == ["harm"]
    assert gains(verdict(got)) == {"kNN": (-10.0, True), "linear": (-10.0, True), "10 labels": (-10.0, True)}


def test_harm_to_one_and_nothing_to_others_is_harm():
    got = evaluation(pretrained=scores(0.4, 0.5, 0.4), untrained=scores(0.5, 0.5, 0.4))
    assert head(verdict(got)) == ["harm"]


def test_what_is_behind_raw_pixels_but_not_behind_the_untrained_encoder_is_no_harm():
    arms = {"pretrained": {"knn": 0.5, "linear": 0.9}, "untrained": {"knn": 0.3, "linear": 0.5}}
    pixels = {"knn": 0.8, "linear": 0.6}
    both = verdict(evaluation(**arms, raw_pixels=pixels))
    assert head(both) == ["helped", "fell short"]
    assert gains(both)["kNN"] == (-30.0, True)
    assert head(verdict(evaluation(**arms, raw_pixels=pixels | {"linear": 0.9}))) == ["fell short"]


def test_where_no_accuracy_that_decides_was_measured_it_is_said_which_would():
    arms = {"pretrained": {"ridge": 0.5}, "untrained": {"ridge": 0.4}, "raw_pixels": {"ridge": 0.3}}
    said = verdict(evaluation(**arms))
    assert all(name in said for name in ("fewshot", "finetune", "knn", "linear"))
    arms["pretrained"]["effective_rank"] = arms["untrained"]["effective_rank"] = 7.0
    got = verdict(evaluation(**arms))
    assert got.startswith("Effective rank 7.0 (untrained 7.0)")
    assert "judged by" in got


def test_a_gain_on_some_is_help_in_part():
    got = evaluation(pretrained=scores(0.8, 0.9, 0.4), untrained=scores(0.5, 0.9, 0.4))
    assert head(verdict(got)) == ["helped", "in part"]
    assert gains(verdict(got)) == {"kNN": (30.0, True), "linear": (0.0, False), "10 labels": (0.0, False)}


def test_without_labels_collapse_is_named():
    got = evaluation(pretrained={"effective_rank": 1.2}, untrained={"effective_rank": 6.54})
    assert re.search(r"no accuracy.*is collapsed.*rank 1\.2 \(untrained 6\.5\)", verdict(got))


def test_without_labels_an_encoder_is_not_blamed_for_images_that_are_all_alike():
    got = verdict(evaluation(pretrained={"effective_rank": 0.0}, untrained={"effective_rank": 0.0}))
    assert "all alike" in got
    assert "collapsed" not in got.lower()


def test_without_labels_a_rank_far_below_that_of_the_untrained_encoder_is_close_to_collapse():
    got = evaluation(pretrained={"effective_rank": 2.9}, untrained={"effective_rank": 13.7})
    assert re.search(r"close to collapse.*rank 2\.9", verdict(got))


def test_without_labels_an_encoder_that_did_not_collapse_is_not_praised():
    got = verdict(evaluation(pretrained={"effective_rank": 30.0}, untrained={"effective_rank": 6.5}))
    assert re.search(r"not collapsed.*rank 30\.0 \(untrained 6\.5\)", got)
    assert "only be told" in got
    assert "helped" not in got


def test_without_accuracy_and_rank_nothing_is_claimed():
    got = evaluation(pretrained={"uniformity": -2.0}, untrained={"uniformity": -1.0})
    assert verdict(got).startswith("Nothing measured")


class Watching(Extractor):
    """Keeps the state of every encoder whose features were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, torch.Tensor]] = []

    def data(self, encoder: nn.Module, *args, **kwargs) -> Features:
        assert not encoder.training
        self.seen.append({k: v.clone() for k, v in encoder.state_dict().items()})
        return super().data(encoder, *args, **kwargs)


def pretrained() -> nn.Module:
    torch.manual_seed(77)
    return spec().build().eval()


@pytest.fixture(scope="module")
def whole():
    """An evaluation with everything, the extractor that watched it, and the encoder's state before and after."""
    data = dataset(dark_and_bright(64), dark_and_bright(32, seed=1))
    extractor, encoder, log = Watching(), pretrained(), []
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    generator = torch.get_rng_state()
    got = evaluate(encoder, spec(), data, extractor, seed=3, recipe=RECIPE, protocols=PROTOCOLS, log=log.append)
    same = all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    return got, extractor, same and torch.equal(generator, torch.get_rng_state()), log


def with_ends(*names: str) -> set[str]:
    """Names of figures and of the ends of their intervals."""
    return {f"{name}{end}" for name in names for end in ("", "_low", "_high")}


def test_every_arm_is_measured(whole):
    got, _, _, log = whole
    assert list(got.arms) == ["pretrained", "untrained", "raw pixels", "largest class"]
    accuracies = with_ends("knn", "linear", "knn_balanced", "linear_balanced", "linear_10_balanced")
    accuracies |= {"linear_10", "linear_10_std", "linear_10_balanced_std"}
    assert got.arms["pretrained"].keys() == accuracies | with_ends("effective_rank", "alignment", "uniformity")
    assert got.arms["untrained"].keys() == got.arms["pretrained"].keys()
    assert got.arms["raw pixels"].keys() == accuracies
    assert got.arms["largest class"].keys() == {
        name for name in accuracies if not name.endswith(("_low", "_high", "_std"))
    }
    assert all(math.isfinite(v) for values in got.arms.values() for v in values.values())
    assert got.arms["raw pixels"]["knn"] == 1.0
    assert got.protocols == {name: m.protocol for name, m in applicable(PROTOCOLS, "classes").items()}
    assert got.held_out == 32
    assert log == ["evaluating pretrained", "evaluating untrained", "evaluating raw pixels"]
    assert isinstance(verdict(got), str)


def test_evaluation_leaves_the_encoder_and_the_global_generator_alone(whole):
    assert whole[2]


def test_evaluation_of_images_on_the_disk_leaves_the_global_generator_alone():
    data = dataset(*(Split(Lazy(s.images), s.labels) for s in (dark_and_bright(20), dark_and_bright(8, seed=1))))
    encoder, state = pretrained(), torch.get_rng_state()
    evaluate(encoder, spec(), data, Extractor(), seed=0, recipe=RECIPE, protocols=("rank", "alignment"))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_untrained_arm_is_the_start_of_a_run_with_the_batch_norms_of_the_data(whole):
    first, untrained, pixels = whole[1].seen
    assert not pixels
    torch.manual_seed(3)
    start = spec().build().state_dict()
    weights = [k for k in start if "running" not in k and "tracked" not in k]
    statistics = [k for k in start if "running" in k]
    assert all(torch.equal(untrained[k], start[k]) for k in weights)
    assert any(not torch.equal(untrained[k], first[k]) for k in weights)
    assert statistics
    assert not any(torch.equal(untrained[k], start[k]) for k in statistics)


def test_the_untrained_encoder_follows_its_seed_and_leaves_the_generator():
    state = torch.get_rng_state()
    one, other = untrained_encoder(spec(), 3), untrained_encoder(spec(), 4)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    wanted = spec().build().state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in one.state_dict().items())
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    assert not one.training


def test_data_without_labels_have_no_accuracy_and_no_raw_pixels():
    data = dataset(Split(images(24)), Split(images(16, seed=1)))
    protocols = (*PROTOCOLS, "linear-augmented", "finetune")
    got = evaluate(pretrained(), spec(), data, Extractor(), seed=0, recipe=RECIPE, protocols=protocols)
    assert list(got.arms) == ["pretrained", "untrained"]
    assert all(v.keys() == with_ends("effective_rank", "alignment", "uniformity") for v in got.arms.values())
    assert got.protocols.keys() == {"rank", "alignment"}
    assert "no accuracy" in verdict(got)


def test_only_what_was_asked_for_is_measured():
    data = dataset(dark_and_bright(24), dark_and_bright(16, seed=1))
    got = evaluate(pretrained(), spec(), data, Extractor(), seed=0, recipe=RECIPE, protocols=("knn",))
    assert all(got.arms[arm].keys() == with_ends("knn", "knn_balanced") for arm in ("pretrained", "raw pixels"))
    assert got.protocols.keys() == {"knn"}


def test_right_and_wrong_answers_are_kept_with_the_accuracy():
    test = dark_and_bright(16, seed=1)
    test.labels[3], test.labels[5] = -1, 1 - test.labels[5]  # one unknown, one that is answered wrong
    data = dataset(dark_and_bright(24), test)
    got = evaluate(pretrained(), spec(), data, Extractor(), seed=0, recipe=RECIPE, protocols=("knn", "rank"))
    assert got.held_out == 15
    for arm in ("pretrained", "untrained", "raw pixels"):
        right = unpack_answers(got.answers[arm]["knn"], got.held_out)
        assert right.mean() == pytest.approx(got.arms[arm]["knn"])
        assert not right[4]  # the fifth of those that have a label
        assert got.answers[arm].keys() == {"knn"}


def test_views_are_extracted_for_lidar_and_raw_pixels_have_figures_of_labels_only():
    data = dataset(dark_and_bright(24), dark_and_bright(16, seed=1))
    protocols = ("lidar", "spectrum", "clustering")
    got = evaluate(pretrained(), spec(), data, Extractor(), seed=0, recipe=RECIPE, protocols=protocols)
    assert {"lidar", "effective_rank", "rankme", "cluster_accuracy"} <= got.arms["pretrained"].keys()
    assert got.arms["raw pixels"].keys() == with_ends("cluster_accuracy", "cluster_nmi", "cluster_ari")


@pytest.fixture
def two_of_encoders(monkeypatch):
    """Two metrics of encoders in the place of those there are, and what they were given."""
    subjects = []

    def seen(subject):
        subjects.append(subject)
        subject.log("at it")
        return {"finetune": 0.25, "lidar": math.nan, "rankme": math.inf}  # of which there is nothing to tell

    monkeypatch.setattr(METRICS, "_things", {})
    of = {"of_encoder": True, "columns": {}}
    metric("for-encoders", needs_labels=True, of_pixels=False, protocol="as it is", **of)(seen)
    metric("for-all", needs_labels=False, of_pixels=True, protocol="too", **of)(lambda subject: {"ridge": 0.5})
    return subjects


def test_metrics_of_encoders_see_every_encoder_and_raw_pixels_if_they_say_anything_of_them(two_of_encoders):
    data, extractor, log = dataset(dark_and_bright(24), dark_and_bright(16, seed=1)), Watching(), []
    encoder, other = pretrained(), pretrained()
    protocols = ("for-encoders", "for-all")
    got = evaluate(
        encoder,
        spec(),
        data,
        extractor,
        seed=4,
        recipe=RECIPE,
        others={"supervised": other},
        protocols=protocols,
        source="there",
        log=log.append,
    )
    both = {"finetune": 0.25, "ridge": 0.5}
    assert got.arms == {"pretrained": both, "untrained": both, "supervised": both, "raw pixels": {"ridge": 0.5}}
    assert list(got.arms) == ["pretrained", "untrained", "supervised", "raw pixels"]
    assert got.protocols == {"for-encoders": "as it is", "for-all": "too"}
    assert got.source == "there"
    assert [s.encoder for s in two_of_encoders][::2] == [encoder, other]
    assert all((s.seed, s.recipe, s.data) == (4, RECIPE, data) for s in two_of_encoders)
    assert log[:2] == ["evaluating pretrained", "pretrained: at it"]
    assert extractor.seen == []  # no metric asked for features


def test_the_supervised_arm_is_no_control():
    got = evaluation(pretrained={"knn": 0.8}, untrained={"knn": 0.5}, supervised={"knn": 0.95}, raw_pixels={"knn": 0.6})
    assert head(verdict(got)) == ["helped"]
    assert gains(verdict(got)) == {"kNN": (20.0, True)}


def test_what_raw_pixels_have_not_is_compared_with_the_untrained_encoder():
    arms = {"pretrained": {"finetune": 0.9}, "untrained": {"finetune": 0.7}, "raw_pixels": {}}
    assert gains(verdict(evaluation(**arms))) == {"fine-tuned": (20.0, True)}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_every_figure_has_an_interval_that_holds_it_or_a_spread(name):
    x, y = gaussian_classes(60, width=40, apart=2.0)
    views = torch.stack([x, x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))])
    got = METRICS[name].measure(fitting(name, Features(x, x.flip(0), y, y.flip(0), ("a", "b", "c"), views)))
    figures = [key for key in got if not key.endswith(("_low", "_high", "_std"))]
    assert figures
    for key in figures:
        assert f"{key}_std" in got or got[f"{key}_low"] <= got[key] <= got[f"{key}_high"], key


@pytest.mark.parametrize("kind", ["half with a gradient and int32 labels", "float64", "default float64"])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_features_and_labels_of_any_type_are_measured(name, kind):
    x, y = gaussian_classes(30, width=12, apart=2.0)
    if kind.startswith("half"):
        x, y = x.half().requires_grad_(), y.int()
    x = x.double() if kind == "float64" else x
    torch.set_default_dtype(torch.float64 if kind == "default float64" else torch.float32)
    try:
        got = METRICS[name].measure(Features(x, x.flip(0), y, y.flip(0), ("a", "b", "c")))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(math.isfinite(value) for value in got.values())


OF_LABELS = pytest.mark.parametrize("name", OF_CLASSES)


@OF_LABELS
def test_classes_need_no_names(name):
    x, y = gaussian_classes(20, width=8, apart=2.0)
    named, nameless = (METRICS[name].measure(Features(x, x.flip(0), y, y.flip(0), c)) for c in (("a", "b", "c"), ()))
    assert nameless == named


@OF_LABELS
def test_labels_beyond_the_names_and_not_one_for_each_image_are_named(name):
    x, y = gaussian_classes(20, width=8, apart=2.0)
    if name not in ("clustering", "retrieval"):  # which ask which labels are equal and no more
        with pytest.raises(UserError, match=r"up to 2.*2 classes"):
            METRICS[name].measure(Features(x, x, y, y, ("a", "b")))
    with pytest.raises(UserError, match=r"60 images.*59 labels"):
        METRICS[name].measure(Features(x, x, y, y[1:], ("a", "b", "c")))


@pytest.mark.parametrize("where", ["train", "held out"])
@OF_LABELS
def test_a_class_of_one_split_only_is_measured(name, where):
    x, y = gaussian_classes(20, width=8, apart=8.0)
    few = y != 2
    sides = (x[few], x, y[few], y) if where == "held out" else (x, x[few], y, y[few])
    assert all(math.isfinite(v) for v in METRICS[name].measure(Features(*sides, ("a", "b", "c"))).values())


@pytest.mark.parametrize("images", [1, 2])
@OF_LABELS
def test_one_or_two_train_images_are_measured_or_a_named_error(name, images):
    x, y = gaussian_classes(20, width=8, apart=8.0)
    few = Features(x[:images], x, y[:images], y, ("a", "b", "c"))
    if images == 1 and name in ("linear", "ridge"):
        with pytest.raises(UserError, match=r"at least 2.*got 1"):
            METRICS[name].measure(few)
    else:
        assert all(math.isfinite(v) for v in METRICS[name].measure(few).values())


def test_an_unknown_protocol_is_named_before_anything_is_measured():
    extractor = Watching()
    with pytest.raises(UserError, match=r"metric.*'knnn'.*'knn'"):
        evaluate(
            pretrained(),
            spec(),
            dataset(Split(images(8)), Split(images(8))),
            extractor,
            seed=0,
            recipe=RECIPE,
            protocols=("rank", "knnn"),
        )
    assert extractor.seen == []


def kinds() -> dict[str, Features]:
    x, y = gaussian_classes(14, width=6, apart=0.0)
    line = torch.linspace(-1, 1, 42)[:, None] * torch.arange(1.0, 7)
    made = {"constant": torch.full((42, 6), 0.3), "isotropic": x, "rank one": line}
    return {k: Features(v, v.clone(), y, y, ("a", "b", "c"), torch.stack([v, v.flip(0)])) for k, v in made.items()}


@pytest.mark.parametrize("kind", ["constant", "isotropic", "rank one"])
@pytest.mark.parametrize("name", OF_FEATURES)
def test_every_metric_gives_the_same_finite_numbers_twice(name, kind):
    features = fitting(name, kinds()[kind])
    kept = features.train_NF.clone(), features.test_NF.clone(), features.views_VNF.clone()
    torch.manual_seed(0)
    one = METRICS[name].measure(features)
    torch.manual_seed(1)
    assert METRICS[name].measure(features) == one
    assert one
    assert all(type(v) is float and math.isfinite(v) for v in one.values()), one
    now = features.train_NF, features.test_NF, features.views_VNF
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    assert METRICS[name].protocol


@pytest.mark.parametrize("where", ["train", "held out"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", OF_FEATURES)
def test_of_features_that_are_not_finite_no_figure_is_told(name, bad, where):
    whole = fitting(name, kinds()["isotropic"])
    (whole.train_NF if where == "train" else whole.test_NF)[2, 3] = bad
    whole.views_VNF[0, 1, 2] = bad
    told = {k: v for k, v in METRICS[name].measure(whole).items() if math.isfinite(v)}
    assert bool(told) == (where == "train" and name in ("rank", "spectrum", "alignment"))


@pytest.mark.parametrize("name", OF_CLASSES)
def test_of_features_whose_squares_overflow_no_accuracy_is_made_up(name):
    whole = kinds()["isotropic"]
    huge = Features(whole.train_NF * 1e38, whole.test_NF * 1e38, whole.train_labels, whole.test_labels, whole.classes)
    assert METRICS[name].measure(huge) == {}


@pytest.mark.parametrize("held_out", [1, 2])
@pytest.mark.parametrize("name", [name for name in OF_FEATURES if name != "retrieval"])
def test_of_hardly_any_held_out_images_nothing_is_told_that_is_no_number(name, held_out):
    whole, place = fitting(name, kinds()["isotropic"]), slice(held_out)
    views = whole.views_VNF[:, place]
    few = Features(
        whole.train_NF, whole.test_NF[place], whole.train_labels, whole.test_labels[place], whole.classes, views
    )
    assert all(math.isfinite(v) for v in METRICS[name].measure(few).values())


def test_the_rank_of_a_single_image_is_not_told():
    for name in ("rank", "spectrum", "lidar"):
        assert METRICS[name].measure(Features(torch.ones(5, 4), torch.ones(1, 4), views_VNF=torch.ones(2, 1, 4))) == {}


@pytest.mark.parametrize("name", OF_FEATURES)
def test_metrics_that_need_labels_are_left_out_without_and_the_others_not(name):
    features = fitting(name, kinds()["isotropic"])
    bare = Features(features.train_NF, features.test_NF, views_VNF=features.views_VNF)
    assert measure(bare, [name]) == ({} if METRICS[name].needs_labels else METRICS[name].measure(features))
    if METRICS[name].needs_labels:
        with pytest.raises(UserError, match="needs labels"):
            METRICS[name].measure(bare)


def test_measure_joins_the_values_of_all_names():
    features = kinds()["isotropic"]
    assert measure(features, ["knn", "rank"]) == METRICS["knn"].measure(features) | METRICS["rank"].measure(features)


@pytest.mark.parametrize("name", OF_ENCODERS)
def test_every_metric_of_encoders_is_finite_for_a_collapsed_one_the_same_twice_and_leaves_it_alone(name, monkeypatch):
    monkeypatch.setattr("frossl.evals.finetune.LEAST", 5)
    encoder = pretrained()
    for parameter in encoder.parameters():
        torch.nn.init.zeros_(parameter)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    data = dataset(dark_and_bright(400 if "pct" in name else 24), dark_and_bright(16, seed=1))
    one, two = (METRICS[name].measure(Subject(encoder, spec(), data, Extractor(), RECIPE, seed=0)) for _ in range(2))
    assert one == two
    assert all(type(v) is float and math.isfinite(v) for v in one.values()), one
    figures = [key for key in one if not key.endswith(("_low", "_high", "_rate"))]
    assert figures
    assert all(one[f"{key}_low"] <= one[key] <= one[f"{key}_high"] for key in figures)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert not encoder.training
    assert METRICS[name].protocol
    assert not name.startswith("finetune") or name.replace("-", "_") in one  # the share of labels is in both


def test_of_many_train_images_a_part_is_used_and_said():
    data, seen = dataset(dark_and_bright(60), dark_and_bright(20, seed=1)), []

    class Watched(Extractor):
        def split(self, encoder, split, spec):
            seen.append(len(split))
            return super().split(encoder, split, spec)

    about = {"seed": 0, "recipe": RECIPE, "protocols": ("knn",)}
    got = evaluate(spec().build().eval(), spec(), data, Watched(), bank=24, **about)
    assert set(seen) == {24, 20}
    assert "24 of 60" in got.protocols["knn"]
    whole = evaluate(spec().build().eval(), spec(), data, Watched(), bank=60, **about)
    assert whole.protocols["knn"] == METRICS["knn"].protocol
