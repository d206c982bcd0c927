"""Views as accelerators make them: on the CPU the numbers, on a CUDA device that is not there what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_views_make import EVERYTHING, MEAN, SOME, STD, parameters, photographs

from fake_cuda import DEVICE, Counts, fake_cuda
from frossl.commands.bench import noise
from frossl.core.axes import fold
from frossl.data.loader import training_batches
from frossl.views import colour
from frossl.views.make import crop_one, finish_views
from frossl.views.on_device import make_on_device, rows_of
from frossl.views.recipes import VIEWS, with_size

KERNELS = 240
"""Most kernels for a group of views, all of whose samples fit in one block."""


def crops(recipe, channels):
    images, drawn = photographs(channels), parameters(recipe)
    each = [
        [crop_one(x, group, d.map(lambda t, i=i: t[:, i : i + 1])) for i, x in enumerate(images)]
        for group, d in zip(recipe, drawn, strict=True)
    ]
    return [torch.stack(group, dim=1) for group in each], drawn


def both(recipe, channels, compiled=False):
    """Views of the same crops as the CPU and as accelerators make them."""
    made, drawn = crops(recipe, channels)
    mean, std = (MEAN + MEAN)[:channels], (STD + STD)[:channels]
    on_device = make_on_device(
        [rows_of(x) for x in made], recipe, drawn, mean, std, torch.device("cpu"), compiled, torch.float32
    )
    return finish_views(made, recipe, drawn, mean, std), on_device


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("view", [EVERYTHING, SOME])
def test_masked_views_are_those_of_the_cpu(view, channels):
    recipe = (replace(view, solarize=0), replace(view, size=12, count=3, solarize=0, blur=0))
    for expected, got in zip(*both(recipe, channels), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
        assert fold(got).is_contiguous(memory_format=torch.channels_last)


def test_masked_views_are_solarized_where_that_was_drawn():
    (expected,), (got,) = both((replace(SOME, blur=0, jitter=0, grayscale=0),), 3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_colours_compiled_for_a_device_are_the_masked_ones(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda kernel, **_: kernel)
    recipe = (replace(SOME, size=11, solarize=0),)
    (expected,), (got,) = both(recipe, 3, compiled=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert colour._compiled.cache_info().currsize


def view_counts(name: str, warm_up: bool = False) -> Counts:
    """What the first batch of views of a recipe costs, or the second, for which the images are on the device."""
    with fake_cuda() as counts:
        recipe = with_size(VIEWS[name], 32)
        batches = training_batches(noise(64, 32), recipe, batch=16, seed=0, device=DEVICE, prefetch=False)
        if warm_up:
            next(batches)
            counts.clear()
        batch = next(batches)
        assert batch.labels_N is not None
        assert {x.device for x in (*batch.views, batch.labels_N)} == {DEVICE}
    return counts


@pytest.mark.parametrize("name", list(VIEWS))
def test_views_of_a_device_wait_for_nothing(name):
    counts, groups = view_counts(name), len(VIEWS[name])
    assert sum(counts.waits.values()) == 1  # all images of the data set, once
    assert counts.copies == 2 + groups  # the places of images, labels, and a row of parameters for each view
    assert counts.row()["kernels"] <= KERNELS * groups
