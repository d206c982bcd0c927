from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from frossl.core.types import UserError
from frossl.views.make import render_views
from frossl.views.params import sample_params
from frossl.views.recipes import VIEWS, View, domain, left_out, pair, with_size, with_views

# Section 3.3 of the fact sheet: per group of views (count, pixels), scale, jitter probability, (brightness,
# contrast, saturation, hue), grayscale, blur, solarize, flip.
STRONG, MEDIUM, MILD = (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1), (0.4, 0.4, 0.2, 0.1)
FULL, PART = (0.08, 1.0), (0.2, 1.0)
PAPER = {
    "stl10-symmetric": [((2, 96), FULL, 0.8, STRONG, 0.2, 0.0, 0.0, 0.5)],
    "stl10-symmetric-weak": [((2, 96), FULL, 0.8, MEDIUM, 0.2, 0.5, 0.0, 0.5)],
    "stl10-asymmetric": [
        ((1, 96), FULL, 0.8, MILD, 0.2, 0.0, 0.0, 0.5),
        ((1, 96), FULL, 0.8, MILD, 0.2, 0.0, 0.2, 0.5),
    ],
    "cifar-symmetric": [((2, 32), FULL, 0.8, STRONG, 0.2, 0.5, 0.0, 0.5)],
    "cifar-symmetric-nocrop": [((2, 32), (1.0, 1.0), 0.8, STRONG, 0.2, 0.5, 0.0, 0.5)],
    "cifar-symmetric-weak": [((2, 32), FULL, 0.8, MEDIUM, 0.2, 0.0, 0.0, 0.5)],
    "cifar-asymmetric": [
        ((1, 32), FULL, 0.8, MILD, 0.2, 0.0, 0.0, 0.5),
        ((1, 32), FULL, 0.8, MILD, 0.2, 0.0, 0.2, 0.5),
    ],
    "cifar-vicreg": [((2, 32), PART, 0.8, MILD, 0.2, 0.0, 0.1, 0.5)],
    "cifar-wmse": [((2, 32), PART, 0.8, STRONG, 0.2, 0.0, 0.0, 0.5)],
    "tiny-symmetric": [((2, 64), FULL, 0.8, STRONG, 0.2, 0.5, 0.0, 0.5)],
    "tiny-symmetric-weak": [((2, 64), FULL, 0.8, MEDIUM, 0.2, 0.5, 0.0, 0.5)],
    "tiny-asymmetric": [
        ((1, 64), FULL, 0.8, MILD, 0.2, 1.0, 0.0, 0.5),
        ((1, 64), FULL, 0.8, MILD, 0.2, 0.1, 0.2, 0.5),
    ],
    "imagenet-symmetric": [((2, 224), FULL, 0.8, STRONG, 0.2, 0.5, 0.0, 0.5)],
    "imagenet-symmetric-weak": [((2, 224), FULL, 0.8, MEDIUM, 0.2, 0.5, 0.0, 0.5)],
    "imagenet-asymmetric": [
        ((1, 224), FULL, 0.8, MILD, 0.2, 1.0, 0.0, 0.5),
        ((1, 224), FULL, 0.8, MILD, 0.2, 0.1, 0.2, 0.5),
    ],
    "imagenet-wmse": [
        ((2, 224), PART, 0.8, STRONG, 0.2, 0.2, 0.0, 0.5),
        ((6, 96), PART, 0.8, STRONG, 0.2, 0.2, 0.0, 0.5),
    ],
    "cifar-emp": [((200, 32), (0.25, 0.25), 0.4, (0.4, 0.4, 0.4, 0.2), 0.2, 0.1, 0.1, 0.0)],
    "stl10-emp": [((20, 64), (0.25, 0.25), 0.4, (0.4, 0.4, 0.4, 0.2), 0.2, 0.1, 0.1, 0.0)],
}


@pytest.mark.parametrize("name", PAPER)
def test_recipe_is_the_papers(name):
    got = [
        (
            (g.count, g.size),
            g.scale,
            g.jitter,
            (g.brightness, g.contrast, g.saturation, g.hue),
            g.grayscale,
            g.blur,
            g.solarize,
            g.flip,
        )
        for g in VIEWS[name]
    ]
    assert got == PAPER[name]
    for group in VIEWS[name]:
        assert group.interpolation == "bicubic"
        assert group.blur_sigma == (0.1, 2.0)
        assert group.solarize_threshold == 128 / 255


def test_every_dataset_of_the_paper_has_its_recipes():
    assert set(PAPER) <= set(VIEWS)


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("name", list(VIEWS))
def test_every_recipe_makes_finite_views(name, channels):
    recipe = with_size(tuple(replace(group, count=min(group.count, 2)) for group in VIEWS[name]), 16)
    images = torch.randint(0, 256, (6, channels, 20, 24), generator=torch.Generator().manual_seed(0)).byte()
    params = sample_params(recipe, seed=0, epoch=0, index_N=torch.arange(6), height=20, width=24)
    views = render_views(images, recipe, params, [0.5] * channels, [0.25] * channels)
    assert sum(v.shape[0] for v in views) == sum(group.count for group in recipe)
    for v in views:
        assert v.shape[1:3] == (6, channels)
        assert v.isfinite().all()
        assert v.abs().max() <= 2 + 1e-5
        assert v.std() > 0.05


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"flip": 1.1}, "flip is a probability"),
        ({"jitter": -0.1}, "jitter is a probability"),
        ({"grayscale": 2}, "grayscale is a probability"),
        ({"blur": -1}, "blur is a probability"),
        ({"solarize": float("nan")}, "solarize is a probability"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"scale": (0.5, 0.4)}, "scale must be"),
        ({"scale": (0.5, 1.1)}, "scale must be"),
        ({"ratio": (0.0, 1.0)}, "ratio must be"),
        ({"ratio": (2.0, 1.0)}, "ratio must be"),
        ({"hue": 0.6}, "hue is a fraction"),
        ({"hue": -0.1}, "hue is a fraction"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma must be"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma must be"),
        ({"interpolation": "nearest"}, "interpolation .*bilinear or bicubic.*'nearest'"),
        ({"count": 0}, "count .*at least 1"),
        ({"size": 0}, "size .*at least 1"),
        ({"brightness": -0.4}, "brightness"),
        ({"contrast": -0.4}, "contrast"),
        ({"saturation": -0.4}, "saturation"),
    ],
)
def test_impossible_views_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        View(**changes)
    with pytest.raises(UserError, match=says):
        replace(View(), **changes)


def test_a_view_is_data_that_cannot_change():
    with pytest.raises(FrozenInstanceError):
        View().size = 3  # type: ignore[misc]
    assert hash(View()) == hash(View())


@pytest.mark.parametrize(
    ("name", "views", "counts"),
    [
        ("cifar-symmetric", 2, [2]),
        ("cifar-symmetric", 8, [8]),
        ("cifar-emp", 4, [4]),
        ("cifar-asymmetric", 2, [1, 1]),
        ("cifar-asymmetric", 4, [2, 2]),
        ("cifar-asymmetric", 5, [3, 2]),
        ("imagenet-wmse", 8, [2, 6]),
    ],
)
def test_with_views_shares_views_out(name, views, counts):
    changed = with_views(VIEWS[name], views)
    assert [group.count for group in changed] == counts
    assert [replace(g, count=1) for g in changed] == [replace(g, count=1) for g in VIEWS[name]]


def test_with_views_drops_groups_that_get_none():
    three = tuple(View(count=1, blur=p) for p in (0.1, 0.2, 0.3))
    assert with_views(three, 2) == three[:2]


def test_with_views_refuses_what_it_cannot_do():
    with pytest.raises(UserError, match=r"--views .*at least 2.*1"):
        with_views(VIEWS["natural"], 1)
    with pytest.raises(UserError, match=r"2x224px \+ 6x96px"):
        with_views(VIEWS["imagenet-wmse"], 4)


@pytest.mark.parametrize(
    ("name", "size", "sizes"), [("natural", 64, [64]), ("imagenet-wmse", 112, [112, 48]), ("imagenet-wmse", 1, [1, 1])]
)
def test_with_size_keeps_proportions_and_all_else(name, size, sizes):
    changed = with_size(VIEWS[name], size)
    assert [group.size for group in changed] == sizes
    assert [replace(g, size=1) for g in changed] == [replace(g, size=1) for g in VIEWS[name]]


def test_with_size_refuses_nothing_to_see():
    with pytest.raises(UserError, match=r"--size .*at least 1.*0"):
        with_size(VIEWS["natural"], 0)


@pytest.mark.parametrize("name", VIEWS)
def test_a_pair_is_two_views_of_the_largest_size(name):
    recipe = pair(VIEWS[name])
    assert sum(group.count for group in recipe) == 2
    assert {group.size for group in recipe} == {max(group.size for group in VIEWS[name])}


@pytest.mark.parametrize(("channels", "name"), [(1, "grey"), (3, "natural"), (4, "satellite"), (13, "satellite")])
def test_each_number_of_channels_has_its_recipe(channels, name):
    assert domain(channels) == name
    assert name in VIEWS


def test_what_has_no_meaning_without_colour_is_named():
    assert left_out(VIEWS["natural"], 3) == ""
    assert left_out(VIEWS["grey"], 1) == ""
    for recipe, channels, named in (
        (VIEWS["natural"], "1 channel", ": saturation, hue, grayscale"),
        ((View(grayscale=0.0, hue=0.0),), "13 channels", ": saturation"),
    ):
        said = left_out(recipe, int(channels.split()[0]))
        assert f"{channels} " in said
        assert said.endswith(named)
    assert left_out((View(grayscale=0.0, jitter=0.0),), 4) == ""
