"""Every operation against torchvision's for the same parameters, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from frossl.views import ops

BATCH = 12


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def integers(low: int, high: Tensor | int, seed: int) -> Tensor:
    """Whole numbers from ``low`` to ``high``, both included."""
    return low + (rand(BATCH, seed=seed) * (torch.as_tensor(high) - low + 1)).long()


def images(channels: int = 3, height: int = 21, width: int = 30) -> Tensor:
    """Noise, with a grey, a black, a white and a one-colour image among it."""
    x = rand(BATCH, channels, height, width)
    x[1] = x[1].mean(0, keepdim=True)
    x[2], x[3], x[4] = 0, 1, x[4, :, :1, :1]
    return x


@pytest.mark.parametrize(("mode", "tolerance"), [("bilinear", 2e-6), ("bicubic", 5e-6)])
@pytest.mark.parametrize("size", [1, 5, 16, 21, 40])
@pytest.mark.parametrize(("rows", "columns"), [(21, 30), (30, 21), (24, 24)])
def test_resized_crop_equals_torchvision(rows, columns, size, mode, tolerance):
    x = rand(BATCH, 3, rows, columns)
    height, width = integers(1, rows, 1), integers(1, columns, 2)
    height[0], width[0] = rows, columns
    height[1], width[1] = 1, 1
    height[2], width[2] = rows, 2
    top, left = integers(0, rows - height, 3), integers(0, columns - width, 4)
    flip = rand(BATCH, seed=5) < 0.5
    whole = ops.resized_crop(x, *(t.float() for t in (top, left, height, width)), size, mode)
    lines, mirrored = (
        ops.resampling_matrix(start.float(), length.float(), side, size, mode, flipped)
        for start, length, side, flipped in ((top, height, rows, None), (left, width, columns, flip))
    )
    got = ops.separable(x, lines, mirrored)
    assert torch.equal(got[~flip], whole[~flip])
    assert 0 < flip.sum() < BATCH
    for i in range(BATCH):
        box = [int(t[i]) for t in (top, left, height, width)]
        wanted = tv.resized_crop(x[i], *box, [size, size], InterpolationMode(mode), antialias=True)
        torch.testing.assert_close(got[i], wanted.flip(-1) if flip[i] else wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("mode", ops.FILTERS)
def test_resampling_rows_sum_to_one_and_do_not_see_beyond_the_crop(mode):
    start, length = torch.tensor([0.0, 3.0, 9.0, 4.0]), torch.tensor([10.0, 5.0, 1.0, 2.0])
    matrix = ops.resampling_matrix(start, length, 10, 7, mode)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(4, 7))
    for i in range(4):
        outside = torch.ones(10, dtype=torch.bool)
        outside[int(start[i]) : int(start[i] + length[i])] = False
        assert (matrix[i][:, outside] == 0).all()


@pytest.mark.parametrize("mode", ops.FILTERS)
def test_a_whole_crop_at_the_same_size_is_the_image(mode):
    x, zero, whole = rand(BATCH, 3, 16, 16), torch.zeros(BATCH), torch.full((BATCH,), 16.0)
    flip = torch.arange(BATCH) % 2 == 0
    assert torch.equal(ops.resized_crop(x, zero, zero, whole, whole, 16, mode), x)
    mirrored = ops.resampling_matrix(zero, whole, 16, 16, mode, flip)
    assert torch.equal(
        ops.separable(x, torch.eye(16)[None], mirrored), torch.where(flip[:, None, None, None], x.flip(-1), x)
    )


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("channels", [1, 3])
def test_adjusting_equals_torchvision(name, channels):
    x, factor = images(channels), rand(BATCH, seed=1) * 2
    factor[:2] = torch.tensor([0.0, 1.0])
    got = getattr(ops, f"adjust_{name}")(x, factor)
    wanted = torch.stack([getattr(tv, f"adjust_{name}")(x[i], float(factor[i])) for i in range(BATCH)])
    torch.testing.assert_close(got, wanted, rtol=0, atol=2e-6)
    assert not torch.allclose(got, x) or (name, channels) == ("saturation", 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_adjusting_hue_equals_torchvision(channels):
    x, shift = images(channels), rand(BATCH, seed=1) - 0.5
    shift[5:8] = torch.tensor([-0.5, 0.0, 0.5])
    got = ops.adjust_hue(x, shift)
    wanted = torch.stack([tv.adjust_hue(x[i], float(shift[i])) for i in range(BATCH)])
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert torch.allclose(got, x) == (channels == 1)


def test_hue_of_pure_colours_turns_as_the_circle_says():
    red, green, blue = torch.eye(3)[:, None, :, None, None]
    third = torch.tensor([1 / 3])
    torch.testing.assert_close(ops.adjust_hue(red, third), green, rtol=0, atol=1e-6)
    torch.testing.assert_close(ops.adjust_hue(green, third), blue, rtol=0, atol=1e-6)
    torch.testing.assert_close(ops.adjust_hue(blue, third), red, rtol=0, atol=1e-6)
    torch.testing.assert_close(ops.adjust_hue(red, -third), blue, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_saturation_and_hue_leave_other_than_rgb_alone(channels):
    x = images(channels)
    assert torch.equal(ops.adjust_saturation(x, torch.full((BATCH,), 0.3)), x)
    assert torch.equal(ops.adjust_hue(x, torch.full((BATCH,), 0.3)), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale_equals_torchvision(channels):
    x = images(channels)
    torch.testing.assert_close(ops.grayscale(x), tv.rgb_to_grayscale(x, channels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_of_other_than_rgb_is_the_mean_over_channels(channels):
    x = images(channels)
    torch.testing.assert_close(ops.grayscale(x), x.mean(1, keepdim=True).expand_as(x))


@pytest.mark.parametrize("radius", [1, 3, 6])
@pytest.mark.parametrize(("height", "width"), [(21, 30), (13, 9)])
def test_blur_equals_torchvision(height, width, radius):
    x, sigma = images(3, height, width), 0.1 + 1.9 * rand(BATCH, seed=1)
    taps = [2 * radius + 1] * 2
    wanted = torch.stack([tv.gaussian_blur(x[i], taps, [float(sigma[i])] * 2) for i in range(BATCH)])
    torch.testing.assert_close(ops.gaussian_blur(x, sigma, radius), wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_blur_of_an_image_smaller_than_its_kernel_keeps_a_constant_and_the_sum_of_weights(size):
    constant = torch.full((3, 3, size, size), 0.3)
    torch.testing.assert_close(ops.gaussian_blur(constant, torch.tensor([0.1, 1.0, 2.0]), 6), constant)


@pytest.mark.parametrize("threshold", [0.0, 128 / 255, 1.0])
def test_solarize_equals_torchvision(threshold):
    x = images()
    assert torch.equal(ops.solarize(x, threshold), torch.stack([tv.solarize(i, threshold) for i in x]))


def test_solarize_inverts_byte_128_and_not_127_as_pil_does():
    x = torch.tensor([127, 128], dtype=torch.uint8).float().div(255).reshape(1, 1, 1, 2)
    torch.testing.assert_close(ops.solarize(x, 128 / 255) * 255, torch.tensor([[[[127.0, 127.0]]]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: ops.adjust_brightness(x, torch.full((BATCH,), 1.5)),
        lambda x: ops.adjust_contrast(x, torch.full((BATCH,), 1.5)),
        lambda x: ops.adjust_saturation(x, torch.full((BATCH,), 1.5)),
        lambda x: ops.adjust_hue(x, torch.full((BATCH,), 0.2)),
        lambda x: ops.gaussian_blur(x, torch.full((BATCH,), 1.0), 2),
        ops.grayscale,
        lambda x: ops.solarize(x, 0.5),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "blur", "grayscale", "solarize"],
)
def test_operations_stay_in_range_and_leave_their_input_alone(change):
    x = images()
    before = x.clone()
    y = change(x)
    assert torch.equal(x, before)
    assert y.shape == x.shape
    assert y.min() >= -1e-6
    assert y.max() <= 1 + 1e-6


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_blur_is_near_pils_which_approximates_a_gaussian_by_boxes(size, sigma):
    """Seven control points to a side: the spectrum of a photograph at 32 pixels, smoother above; noise on top."""
    smooth = torch.nn.functional.interpolate(rand(1, 3, 7, 7), (size, size), mode="bicubic").clamp(0, 1)
    x = (0.9 * smooth + 0.1 * rand(1, 3, size, size, seed=1)).mul(255).round().byte()
    picture = Image.fromarray(x[0].permute(1, 2, 0).numpy()).filter(ImageFilter.GaussianBlur(sigma))
    theirs = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    ours = ops.gaussian_blur(x.float(), torch.tensor([sigma]), 6)[0]
    assert (ours - theirs).abs().mean() <= 2
