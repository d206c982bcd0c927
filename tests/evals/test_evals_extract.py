from __future__ import annotations

import contextlib
import sys

import pytest
import torch
from PIL import Image
from small_data import Lazy, dark_and_bright, dataset, images, spec
from torch import nn

import frossl.evals.extract as extract
from fake_cuda import DEVICE, MIX, fake_cuda
from frossl.core.types import Features, UserError
from frossl.data import open_data
from frossl.data.loader import plain_batches
from frossl.data.types import Split
from frossl.evals.extract import Extractor, first, on_device, pixels
from frossl.evals.knn import knn
from frossl.evals.ridge import ridge
from frossl.evals.spectral import effective_rank
from frossl.views.recipes import View


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return spec().build().eval()


@pytest.fixture
def batches_of_ten(monkeypatch):
    monkeypatch.setattr(extract, "plain_batches", lambda *a, **k: plain_batches(*a, **{**k, "batch": 10}))


def numbered(count: int) -> torch.Tensor:
    """Image ``i`` has ``i`` in every pixel."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 16, 16).contiguous()


class Brightness(nn.Module):
    """The number of a numbered image, and the device it came on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))  # as every encoder has
        self.devices: set[str] = set()

    def forward(self, x):
        self.devices.add(x.device.type)
        if x.device.type == "meta":
            return torch.zeros(len(x), 1)
        return ((x * 0.2 + 0.4) * 255).mean((2, 3))


@pytest.mark.parametrize("lazy", [False, True])
def test_features_come_in_the_order_of_the_images(lazy, batches_of_ten):
    x = numbered(37)
    got = Extractor().split(Brightness(), Split(Lazy(x) if lazy else x), spec())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, torch.arange(37.0)[:, None], atol=1e-3, rtol=0)


def test_features_do_not_depend_on_the_batch(encoder, monkeypatch, request):
    split = Split(images(37))
    whole = Extractor().split(encoder, split, spec())
    request.getfixturevalue("batches_of_ten")
    assert whole.shape == (37, 8)
    torch.testing.assert_close(Extractor().split(encoder, split, spec()), whole, atol=1e-5, rtol=1e-5)
    assert not whole.requires_grad


def test_views_come_in_the_order_of_views_and_images():
    split = Split(numbered(300))
    recipe = (View(count=2, size=16, jitter=0.0), View(count=1, size=8, jitter=0.0))
    got = Extractor().views(Brightness(), split, spec(), recipe, 0)
    assert got.shape == (3, 300, 1)
    wanted = split.images[:, 0, 0, 0].float()[None, :, None].expand(3, -1, -1)
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0)


def test_views_follow_their_seed(encoder):
    split, recipe = Split(images(5)), (View(count=2, size=16),)
    one, two, other = (Extractor().views(encoder, split, spec(), recipe, seed) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_images_and_views_are_taken_to_the_device(monkeypatch):
    """A device without numbers stands for an accelerator, which this machine need not have."""
    monkeypatch.setattr(torch, "autocast", lambda *a, **k: contextlib.nullcontext())
    for what in ("split", "views"):
        seen = Brightness()
        rest = () if what == "split" else ((View(count=2, size=16),), 0)
        getattr(Extractor(device="meta"), what)(seen, Split(images(3)), spec(), *rest)
        assert seen.devices == {"meta"}, what


def test_data_is_seen_in_eval_mode_and_the_mode_is_put_back():
    torch.manual_seed(0)
    network = spec().build().train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    data = dataset(dark_and_bright(10), dark_and_bright(6, seed=1))
    got = Extractor().data(network, data, spec(), ((View(count=2, size=16),), 0), most_views=4)
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert got.train_NF.shape == (10, 8)
    assert got.test_NF.shape == (6, 8)
    assert got.views_VNF.shape == (2, 4, 8)
    assert got.classes == ("dark", "bright")
    assert torch.equal(got.test_labels, data.test.labels)
    torch.testing.assert_close(got.test_NF, Extractor().split(network.eval(), data.test, spec()))
    assert Extractor().data(network, data, spec()).views_VNF is None


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_pick_takes_images_and_labels_at_an_index(lazy, labels):
    x = numbered(9)
    split = Split(Lazy(x) if lazy else x, torch.arange(9) if labels else None)
    got = split.select(torch.tensor([7, 0, 3]))
    assert len(got) == 3
    assert got.in_memory is not lazy
    assert [int(got.images[i][0, 0, 0]) for i in range(3)] == [7, 0, 3]
    assert (got.labels is None) if not labels else got.labels.tolist() == [7, 0, 3]
    again = got.select(torch.tensor([2, 1]))
    assert [int(again.images[i][0, 0, 0]) for i in range(2)] == [3, 0]


@pytest.mark.parametrize("lazy", [False, True])
def test_first_is_spread_over_the_split(lazy):
    x = numbered(10)
    split = Split(Lazy(x) if lazy else x, torch.arange(10))
    assert first(split, 10) is split
    assert first(split, 99) is split
    assert first(split, 4).labels.tolist() == [0, 3, 6, 9]
    assert [int(first(split, 4).images[i][0, 0, 0]) for i in range(4)] == [0, 3, 6, 9]
    assert first(split, 1).labels.tolist() == [0]


@pytest.mark.parametrize(("n", "count"), [(5001, 5000), (100_000, 5000), (60_000, 59_999), (7, 2)])
def test_first_takes_no_image_twice_and_reaches_the_end(n, count):
    labels = first(Split(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n)), count).labels
    assert len(labels) == count
    assert (labels.diff() > 0).all()
    assert (int(labels[0]), int(labels[-1])) == (0, n - 1)


@pytest.mark.parametrize(("size", "side"), [(16, 16), (32, 32), (96, 32)])
def test_pixels_are_at_most_32_on_a_side(size, side):
    data = dataset(dark_and_bright(6), dark_and_bright(4, seed=1))
    network, fed = pixels(spec(size))
    got = Extractor().data(network, data, fed)
    assert fed.features == side * side
    assert got.train_NF.shape == (6, side * side)
    assert got.test_NF.shape == (4, side * side)
    assert torch.equal(got.train_labels, data.train.labels)
    assert got.classes == data.classes
    if size == 16:
        torch.testing.assert_close(got.train_NF, ((data.train.images / 255 - 0.4) / 0.2).flatten(1))


def norms(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_batch_norms_settle_at_the_mean_over_batches(batches_of_ten):
    torch.manual_seed(0)
    network = spec().build().eval()
    network.bn1.momentum = 0.37
    split = dark_and_bright(40)
    weights = {k: v.clone() for k, v in network.named_parameters()}
    Extractor().settle_batch_norm(network, split, spec())
    assert not network.training
    assert norms(network)[0].momentum == 0.37
    assert all(m.momentum == 0.1 for m in norms(network)[1:])
    assert all(torch.equal(v, weights[k]) for k, v in network.named_parameters())
    # The first norm sees the first convolution only.
    with torch.no_grad():
        parts = [network.conv1(((x / 255) - 0.4) / 0.2) for x in split.images.split(10)]
    mean = torch.stack([p.mean((0, 2, 3)) for p in parts]).mean(0)
    variance = torch.stack([p.transpose(0, 1).flatten(1).var(1) for p in parts]).mean(0)
    torch.testing.assert_close(network.bn1.running_mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(network.bn1.running_var, variance, atol=1e-5, rtol=1e-4)


def test_settled_batch_norms_forget_what_was_before():
    split = dark_and_bright(40)
    torch.manual_seed(0)
    one = spec().build()
    torch.manual_seed(0)
    two = spec().build()
    for m in norms(two):
        m.running_mean.fill_(7.0)
        m.running_var.fill_(70.0)
    for network in (one, two):
        Extractor().settle_batch_norm(network, split, spec())
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in zip(norms(one), norms(two), strict=True))
    assert all(torch.equal(a.running_var, b.running_var) for a, b in zip(norms(one), norms(two), strict=True))


def test_batch_norms_settle_when_one_image_is_left_over(batches_of_ten):
    """The last maps of images of 16 pixels are single pixels: one image alone has no variance there."""
    torch.manual_seed(0)
    network = spec().build()
    Extractor().settle_batch_norm(network, dark_and_bright(41), spec())
    assert all(m.running_var.isfinite().all() for m in norms(network))


def test_an_encoder_without_batch_norm_is_left_alone():
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 3)).train()
    Extractor().settle_batch_norm(network, dark_and_bright(4), spec())
    assert network.training


@pytest.fixture
def lazy(tmp_path):
    for i in range(6):
        Image.new("RGB", (24 + i, 24)).save(tmp_path / f"{i}.jpg")
    data = open_data(str(tmp_path), memory_limit=0)
    assert not data.train.in_memory
    return data


def test_a_part_of_images_in_files_is_read_as_the_whole_is(lazy):
    part = lazy.train.select(torch.tensor([2, 0]))
    assert type(part.images) is type(lazy.train.images)
    assert torch.equal(part.images[0], lazy.train.images[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_gone_is_an_error_in_a_sentence(lazy, tmp_path, workers):
    for path in tmp_path.glob("*.jpg"):
        path.unlink()
    with pytest.raises(UserError) as error:
        list(plain_batches(lazy.train, 16, (0.0,) * 3, (1.0,) * 3, batch=2, workers=workers))
    assert "Traceback" not in str(error.value)
    assert ".jpg" in str(error.value)


def test_unreadable_images_are_left_out_of_a_part_with_their_labels(tmp_path, monkeypatch):
    monkeypatch.setattr("frossl.data.decide.IMAGES", 5)
    for i in range(40):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(tmp_path / "ab"[i % 2] / f"{i:02d}.png")
    data = open_data(str(tmp_path), check="on-read")
    for i in (3, 20):
        (tmp_path / data.train.images.sources.name(int(data.train.images.index[i]))).write_bytes(b"broken")
    for count in (100, len(data.train), len(data.train) // 2):
        part = first(data.train, count)
        assert len(part) == len(part.labels) <= min(count, len(data.train) - 2)
        assert [int(part.images[i][0, 0, 0]) % 2 for i in range(len(part))] == part.labels.tolist()


@pytest.mark.parametrize("held", [1, 30, 2**28])
def test_features_are_collected_in_order_whatever_stays_on_the_device(monkeypatch, held):
    monkeypatch.setattr(extract, "HELD", held)
    parts = [torch.rand(n, 3) for n in (2, 1, 4)]
    assert torch.equal(extract.collected(iter(parts)), torch.cat(parts))
    assert extract.collected([]) is None


@pytest.mark.parametrize(("free", "there"), [(1e9, True), (100.0, False)])
def test_features_go_to_a_device_that_has_room_and_metrics_stay_there(monkeypatch, free, there):
    y = torch.arange(8) % 2
    features = Features(torch.randn(8, 4), torch.randn(8, 4), y, y)
    assert on_device(features, torch.device("cpu")) is features
    with fake_cuda() as counts:
        monkeypatch.setattr(extract, "free_memory", lambda device: free)
        monkeypatch.setattr(sys.modules["frossl.evals.ridge"], "with_balanced", lambda *answers: {})  # counts classes
        placed = on_device(features, DEVICE)
        assert {x.device == DEVICE for x in (placed.train_NF, placed.test_NF, placed.train_labels)} == {there}
        for measured in (knn, ridge, lambda f: effective_rank(f.test_NF)) if there else ():
            measured(placed)
    assert MIX not in {kind for kind, _ in counts.waits}, counts.waits
