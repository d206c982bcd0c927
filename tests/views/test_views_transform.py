"""Views as a loop of one's own asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from frossl.core.types import UserError
from frossl.data.loader import views_of
from frossl.data.types import Split
from frossl.views import VIEWS, View, ViewTransform, make_views


def images(n: int = 5, channels: int = 3, height: int = 40, width: int = 52) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def test_views_are_those_of_training():
    x, mean, std = images(), [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    index = torch.tensor([3, 1])
    (wanted,) = views_of(Split(x, None), VIEWS["natural"], index, mean, std, seed=7, epoch=2)
    got = make_views(x[index], "natural", seed=7, epoch=2, index=index, mean=mean, std=std)
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("kind", ["PIL", "array", "tensor"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transform_makes_the_same_pixels_of_one_image(kind, channels):
    x = images(channels=channels)
    recipe = "natural" if channels == 3 else "grey"
    wanted = make_views(x, recipe, size=32, views=4, seed=3, epoch=1, index=[10, 11, 12, 13, 14])
    array = x[2].permute(1, 2, 0).numpy().squeeze()
    image = {"PIL": Image.fromarray(array), "array": array, "tensor": x[2]}[kind]
    assert torch.equal(ViewTransform(recipe, size=32, views=4, seed=3)(image, index=12, epoch=1), wanted[:, 2])


def test_two_resolutions_are_a_list():
    recipe = (View(count=2, size=32), View(count=3, size=16))
    large, small = make_views(images(4), recipe)
    assert (large.shape, small.shape) == ((2, 4, 3, 32, 32), (3, 4, 3, 16, 16))
    assert [x.shape for x in ViewTransform(recipe)(images(1)[0])] == [(2, 3, 32, 32), (3, 3, 16, 16)]


def test_without_an_index_each_call_draws_anew_by_torchs_generator():
    transform, x = ViewTransform("natural", size=32), images(1)[0]
    torch.manual_seed(0)
    first, second = transform(x), transform(x)
    torch.manual_seed(0)
    assert torch.equal(transform(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (Image.new("I;16", (8, 8)), "I;16: scale it"),
        (Image.new("F", (8, 8)), "F: scale it"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"\(1, 3, 8, 8\)"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), "channels last"),
        (np.zeros((3, 32, 32), np.uint8), "channels last"),
        (torch.zeros(3, 300, 200, dtype=torch.uint8), "give size.*300 x 200"),
        (Image.new("RGBA", (8, 8)), "RGBA"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (torch.zeros(3, 8, 8), "float32"),
        ("photo.png", "str"),
    ],
)
def test_what_is_no_8_bit_image_is_named(image, says):
    with pytest.raises(UserError, match=says):
        ViewTransform()(image)


def test_an_index_of_another_length_and_an_unknown_recipe_are_refused():
    with pytest.raises(UserError, match="5 integers"):
        make_views(images(), index=[1, 2])
    with pytest.raises(UserError, match="natural"):
        make_views(images(), "naturl")


def test_numbers_that_make_no_views_are_refused():
    with pytest.raises(UserError, match="seed must be at least 0"):
        make_views(images(), seed=-1)
    with pytest.raises(UserError, match=r"\(0, 3, 40, 52\)"):
        make_views(images()[:0])
    with pytest.raises(UserError, match="std must be more than 0"):
        make_views(images(), std=[0.2, 0.0, 0.2])


def test_large_images_get_the_size_of_a_published_recipe_or_that_asked_for():
    large = images(1, height=120, width=130)
    assert make_views(large, "stl10-symmetric").shape[-1] == 96
    assert make_views(large, "natural", size=32).shape[-1] == 32


def test_one_group_of_views_is_a_recipe():
    group = View(count=3, size=16)
    assert torch.equal(make_views(images(), group), make_views(images(), (group,)))


def test_an_array_that_cannot_be_written_is_read_without_a_warning(recwarn):
    ViewTransform(size=32)(np.asarray(Image.new("RGB", (40, 40))), index=0)
    assert not recwarn.list
