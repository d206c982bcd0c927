from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from frossl.core.axes import fold, unfold
from frossl.views.make import crop_one, finish_views, render_views
from frossl.views.on_device import cut, pack
from frossl.views.params import ORDERS, ViewParams, sample_params
from frossl.views.recipes import Recipe, View

N, ROWS, COLUMNS = 10, 26, 34
MEAN, STD = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)
IDENTITY = View(size=16, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
EVERYTHING = View(size=16, flip=1, vertical=1, jitter=1, hue=0.2, grayscale=0, blur=1, solarize=1)
SOME = View(
    size=24, count=3, flip=0.5, vertical=0.3, jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2,
    grayscale=0.3, blur=0.5, solarize=0.4,
)  # fmt: skip


def photographs(channels: int = 3, rows: int = ROWS, columns: int = COLUMNS, n: int = N) -> Tensor:
    """Smooth random uint8 images."""
    small = torch.rand(n, channels, 7, 7, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(small, (rows, columns), mode="bilinear")
    return (30 + 190 * large).round().byte()


def parameters(recipe: Recipe, n: int = N, rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> list[ViewParams]:
    return sample_params(recipe, seed=seed, epoch=0, index_N=torch.arange(n), height=rows, width=columns)


def one_by_one(image: Tensor, group: View, d: ViewParams, v: int, n: int) -> tuple[Tensor, Tensor]:
    """A view before normalisation by torchvision's functions in the documented order, and where it is certain.

    Solarizing jumps at its threshold, so a pixel within 1e-4 of it may go either way. Flip comes last, as there.
    """
    box = [int(t[v, n]) for t in (d.top, d.left, d.height, d.width)]
    size = [group.size, group.size]
    x = tv.resized_crop(image, *box, size, InterpolationMode(group.interpolation), antialias=True).float() / 255
    if d.jitter[v, n]:
        for k in ORDERS[int(d.order[v, n])]:
            change = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)[k]
            x = change(x, float(d.factors[v, n, k]))
    if d.grayscale[v, n]:
        x = tv.rgb_to_grayscale(x, x.shape[0])
    if d.blur[v, n]:
        x = tv.gaussian_blur(x, [2 * math.ceil(3 * group.blur_sigma[1]) + 1] * 2, [float(d.sigma[v, n])] * 2)
    certain = torch.ones_like(x, dtype=torch.bool)
    if d.solarize[v, n]:
        certain = (x - group.solarize_threshold).abs() > 1e-4
        x = tv.solarize(x, group.solarize_threshold)
    mirrored = [axis for axis, drew in ((-1, d.flip), (-2, d.vertical)) if drew[v, n]]
    return x.flip(mirrored), certain.flip(mirrored)


def crop(images: Tensor, group: View, params: ViewParams) -> Tensor:
    """``(V, N, C, S, S)`` crops as accelerators make them."""
    packed, columns = pack(params.map(fold), [0.0], [1.0])
    parts = {name: packed[:, at].squeeze(1) for name, at in columns.items()}
    return unfold(cut(images, group)(0, len(packed), parts), group.count)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "recipe",
    [
        (replace(EVERYTHING, solarize=0),),
        (EVERYTHING,),
        (replace(EVERYTHING, grayscale=1, interpolation="bilinear"),),
        (replace(EVERYTHING, size=40, blur_sigma=(0.5, 1.0)),),
        (SOME, replace(SOME, size=16, count=2, interpolation="bilinear")),
    ],
    ids=["no-solarize", "all", "all-grey-bilinear", "all-enlarged", "some-of-each-two-sizes"],
)
def test_views_are_torchvisions_functions_one_after_another(recipe, channels):
    images, drawn = photographs(channels), parameters(recipe)
    shift, scale = torch.tensor(MEAN[:channels])[:, None, None], torch.tensor(STD[:channels])[:, None, None]
    views = render_views(images, recipe, drawn, MEAN[:channels], STD[:channels])
    assert len(views) == len(recipe)
    for group, d, got in zip(recipe, drawn, views, strict=True):
        uncertain = 0
        for v in range(group.count):
            for n in range(N):
                wanted, certain = one_by_one(images[n], group, d, v, n)
                uncertain += int((~certain).sum())
                error = (got[v, n] - (wanted - shift) / scale).abs() * scale
                assert error[certain].max() < 5e-5
        assert uncertain < 2e-3 * got.numel()


def test_the_samples_of_that_test_exercise_every_operation_and_its_absence():
    (d, _) = parameters((SOME, replace(SOME, size=16, count=2)))
    for chosen in (d.flip, d.vertical, d.jitter, d.grayscale, d.blur, d.solarize):
        assert 0 < chosen.sum() < chosen.numel()
    assert len(d.order.unique()) > 10


def test_another_order_of_jitter_gives_other_views():
    """Else the comparison with torchvision could not see the order."""
    images, recipe = photographs(), (replace(EVERYTHING, solarize=0, blur=0),)
    (d,) = parameters(recipe)
    other = replace(d, order=(d.order + 11) % 24)
    a, b = (render_views(images, recipe, [x], MEAN, STD)[0] for x in (d, other))
    assert ((a - b).abs().amax(dim=(2, 3, 4)) > 1e-2).float().mean() > 0.5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_identity_recipe_is_normalisation(channels):
    images = photographs(channels, 16, 16)
    mean, std = [0.4, 0.5, 0.6, 0.3][:channels], [0.2, 0.25, 0.3, 0.1][:channels]
    (views,) = render_views(images, (IDENTITY,), parameters((IDENTITY,), rows=16, columns=16), mean, std)
    wanted = (images.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert views.shape == (2, N, channels, 16, 16)
    torch.testing.assert_close(views, wanted.expand_as(views), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_operations_on_colour_are_skipped_without_colour(channels):
    """Saturation and hue alone change nothing."""
    recipe = (replace(IDENTITY, jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.9, hue=0.5),)
    images = photographs(channels, 16, 16)
    (views,) = render_views(images, recipe, parameters(recipe, rows=16, columns=16), [0.0] * channels, [1.0] * channels)
    torch.testing.assert_close(views, (images.float() / 255).expand_as(views), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_views_of_any_number_of_channels_are_finite_and_changed(channels):
    images, recipe = photographs(channels), (SOME,)
    (views,) = render_views(images, recipe, parameters(recipe), [0.5] * channels, [0.25] * channels)
    assert views.shape == (3, N, channels, 24, 24)
    assert views.isfinite().all()
    assert (views[0] - views[1]).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_views_of_one_size_are_merged_in_the_order_of_the_recipe():
    recipe = tuple(
        replace(IDENTITY, count=count, size=size, solarize=solarize)
        for count, size, solarize in ((2, 16, 0.0), (1, 8, 1.0), (1, 16, 1.0), (3, 8, 0.0))
    )
    images = photographs(rows=16, columns=16)
    large, small = render_views(images, recipe, parameters(recipe, rows=16, columns=16), MEAN, STD)
    assert large.shape == (3, N, 3, 16, 16)
    assert small.shape == (4, N, 3, 8, 8)
    assert torch.equal(large[0], large[1])
    assert not torch.equal(large[0], large[2])
    assert torch.equal(small[1], small[3])
    assert not torch.equal(small[0], small[1])


def test_a_sample_gives_the_same_view_in_any_batch():
    images, recipe = photographs(), (SOME,)
    index = torch.tensor([7, 2, 5])
    whole = render_views(images, recipe, parameters(recipe), MEAN, STD)[0]
    drawn = sample_params(recipe, seed=0, epoch=0, index_N=index, height=ROWS, width=COLUMNS)
    part = render_views(images[index], recipe, drawn, MEAN, STD)[0]
    torch.testing.assert_close(part, whole[:, index], rtol=0, atol=1e-4)


def test_images_are_left_alone():
    images = photographs()
    before = images.clone()
    render_views(images, (EVERYTHING,), parameters((EVERYTHING,)), MEAN, STD)
    assert torch.equal(images, before)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [12, 20, 48])
@pytest.mark.parametrize(("rows", "columns"), [(26, 34), (40, 23)])
def test_crops_by_the_workers_equal_crops_by_the_batch(rows, columns, size, mode):
    """One grey level for rounding in each of the two directions, and the rounding of their sum."""
    group = View(size=size, interpolation=mode, count=3, scale=(0.1, 1.0))
    images = photographs(3, rows, columns, n=6)
    whole = crop(images.float(), group, parameters((group,), 6, rows, columns)[0])
    for n in range(6):
        (d,) = sample_params((group,), seed=0, epoch=0, index_N=torch.tensor([n]), height=rows, width=columns)
        one = crop_one(images[n], group, d)
        assert one.dtype == torch.uint8
        assert one.shape == (3, 3, size, size)
        assert (one - whole[:, n]).abs().max() <= 1.5


def test_crops_finished_apart_are_the_views():
    images, recipe = photographs(), (SOME, replace(SOME, size=16))
    drawn = parameters(recipe)
    crops = [
        torch.stack([crop_one(images[n], group, d.map(lambda t, n=n: t[:, n : n + 1])) for n in range(N)], dim=1)
        for group, d in zip(recipe, drawn, strict=True)
    ]
    for a, b in zip(
        finish_views(crops, recipe, drawn, MEAN, STD), render_views(images, recipe, drawn, MEAN, STD), strict=True
    ):
        assert torch.equal(a, b)


def test_crops_stay_in_range():
    noise = (torch.rand(N, 3, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1)) > 0.5) * 255.0
    group = View(size=50, interpolation="bicubic")  # overshoots at edges
    crops = crop(noise, group, parameters((group,))[0])
    assert crops.min() == 0
    assert crops.max() == 255


@pytest.mark.parametrize(("images", "statistics"), [(1, 3), (3, 1), (4, 3)])
def test_statistics_of_another_number_of_channels_are_refused(images, statistics):
    """Broadcasting would make a one-channel image a three-channel one without a word."""
    recipe = (replace(IDENTITY, size=8),)
    with pytest.raises((ValueError, RuntimeError)):
        render_views(photographs(images), recipe, parameters(recipe), [0.5] * statistics, [0.5] * statistics)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit_and_views_are_channels_last(dtype):
    images, recipe = photographs(), (SOME, replace(SOME, size=16, count=2), SOME)
    drawn = parameters(recipe)
    before = torch.get_num_threads()
    made = {}
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        made[threads] = render_views(images, recipe, drawn, MEAN, STD, dtype=dtype)
        with ThreadPoolExecutor(1) as pool:
            assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == threads
    torch.set_num_threads(before)
    assert [x.shape[0] for x in made[1]] == [6, 2]
    for x, *others in zip(*made.values(), strict=True):
        assert x.dtype == dtype
        assert x.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert all(torch.equal(x, other) for other in others)


def test_half_precision_is_the_rounded_view():
    images, drawn = photographs(), parameters((SOME,))
    (exact,), (half,) = (
        render_views(images, (SOME,), drawn, MEAN, STD, dtype=d) for d in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(half, exact.bfloat16())


def test_an_error_in_a_thread_is_passed_on(monkeypatch):
    images, drawn = photographs(), parameters((SOME,))

    def failing(x, d):
        raise ValueError("no colour")

    monkeypatch.setattr("frossl.views.make.find_colour", lambda *_: failing)
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="no colour"):
            render_views(images, (SOME,), drawn, MEAN, STD)
    finally:
        torch.set_num_threads(1)
