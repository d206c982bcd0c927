"""Lists find what was planted: copies, strangers, clusters; and choices leave no kind of image out."""

from __future__ import annotations

import pytest
import torch

from frossl.core.linalg import NumericalError
from frossl.core.types import UserError
from frossl.curate.duplicates import candidate_pairs, correlations, group_pairs, near_duplicates
from frossl.curate.lists import choose, cluster_count, clusters, outlier_scores
from frossl.curate.neighbours import nearest
from frossl.curate.space import plane, unit


@pytest.fixture
def blobs():
    """300 images about five centres of different sizes, and which."""
    generator = torch.Generator().manual_seed(0)
    of = torch.arange(5).repeat_interleave(torch.tensor([120, 80, 50, 30, 20]))
    centres = 4 * torch.randn(5, 16, generator=generator)
    return unit(centres[of] + torch.randn(300, 16, generator=generator) + 10), of


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Smooth uint8 pictures, as photographs are."""
    x = torch.rand(*shape[:2], 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(x, shape[2:], mode="bicubic").clamp(0, 1).mul(200).byte()


def test_neighbours_in_blocks_are_those_of_the_whole_matrix(monkeypatch):
    x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(x, dim=1)
    whole = (unit @ unit.T).fill_diagonal_(-9).topk(4, dim=1)
    monkeypatch.setattr("frossl.curate.neighbours.BLOCK", 7 * 50)
    values, index = nearest(x, x, 4, same=True)
    assert torch.equal(index, whole.indices)
    assert torch.allclose(values, whole.values)
    assert nearest(x[:3], x[:3], 10, same=True)[1].shape == (3, 2)


def test_copies_of_four_kinds_are_found_and_nothing_else():
    x = noise(60, 3, 32, 32)
    shifted = torch.nn.functional.pad(x[1].float(), (2, 0, 1, 0), mode="replicate")[:, :32, :32].byte()
    copies = torch.stack([x[0], shifted, (x[2].float() * 1.2).byte(), (x[3].float() + 3).byte()])
    pictures = torch.cat([x, copies])
    z = unit(torch.nn.functional.avg_pool2d(pictures.float(), 8).flatten(1))
    groups = near_duplicates(nearest(z, z, 10, same=True)[1], pictures)
    assert sorted(group.images for group in groups) == [(0, 60), (1, 61), (2, 62), (3, 63)]


def test_flat_pictures_are_copies_only_where_they_are_equal():
    x = torch.stack([torch.full((3, 32, 32), value, dtype=torch.uint8) for value in (0, 0, 200)])
    found = correlations(x, torch.tensor([[0, 1], [0, 2]]))
    assert found.tolist() == [1.0, 0.0]
    assert len(correlations(x, torch.empty(0, 2, dtype=torch.long))) == 0


def test_of_a_group_the_held_out_image_is_kept_then_the_largest():
    pairs, values = torch.tensor([[0, 1], [1, 2], [3, 4]]), torch.tensor([0.99, 0.97, 0.98])
    splits = ["train", "train", "held-out", "train", "train"]
    groups = group_pairs(pairs, values, 5, splits, pixels_of=lambda i: i)
    assert [group.images for group in groups] == [(2, 1, 0), (4, 3)]
    assert groups[0].alike == pytest.approx(0.97)
    assert group_pairs(pairs[:0], values[:0], 5) == []


def test_pairs_are_said_once():
    assert candidate_pairs(torch.tensor([[1], [0], [1]])).tolist() == [[0, 1], [1, 2]]


def test_strangers_are_the_first_outliers_although_they_are_near_each_other():
    generator = torch.Generator().manual_seed(0)
    usual = torch.randn(2000, 16, generator=generator) * torch.tensor([1.0] * 8 + [0.1] * 8)
    strangers = torch.randn(12, 16, generator=generator) * 0.1 + 8 * torch.eye(16)[15]
    scores = outlier_scores(torch.cat([usual, strangers]))
    assert {*range(2000, 2012)} <= {*scores.argsort(descending=True)[:24].tolist()}
    assert scores.max() == 1


def test_outliers_may_have_a_direction_or_a_length_of_their_own():
    usual = torch.randn(500, 16, generator=torch.Generator().manual_seed(0)) + 5
    for odd in (usual[:1] * 3, -usual[:1]):
        assert outlier_scores(torch.cat([usual, odd]))[-1] == 1


def test_images_that_are_alike_are_as_odd():
    assert outlier_scores(torch.rand(1, 8).expand(30, 8)).tolist() == [0.0] * 30


def test_clusters_are_the_blobs_the_largest_first(blobs):
    z, of = blobs
    found, near = clusters(z, 5)
    assert torch.equal(found, of)
    assert bool((near <= 1 + 1e-5).all())
    assert (cluster_count(300), cluster_count(300, 10), cluster_count(50)) == (2, 10, 2)


@pytest.mark.parametrize("how", ["random", "typical"])
def test_choices_are_of_all_kinds_and_differ_by_seed(blobs, how):
    z, of = blobs
    chosen = choose(z, 10, how)
    assert len(chosen.unique()) == 10
    assert len(of[chosen].unique()) >= (5 if how == "typical" else 2)
    assert torch.equal(chosen, choose(z, 10, how))
    assert len(choose(z, 1000, how)) == 300


def test_a_map_without_umap_is_pca_and_says_so(blobs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    places, kind = plane(blobs[0])
    assert (kind, places.shape) == ("PCA", (300, 2))
    with pytest.raises(UserError, match=r"frossl\[explore\]"):
        plane(blobs[0], method="umap")


def test_umap_is_used_where_it_is(blobs, monkeypatch):
    class Fake:
        UMAP = type("UMAP", (), {"__init__": lambda self, **how: None, "fit_transform": lambda self, x: x[:, :2] + 1})

    monkeypatch.setitem(__import__("sys").modules, "umap", Fake)
    assert plane(blobs[0])[1] == "UMAP"
    assert plane(blobs[0], method="pca")[1] == "PCA"


def test_embeddings_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match="at least 3"):
        unit(torch.randn(2, 4))
    with pytest.raises(NumericalError):
        unit(torch.full((5, 4), torch.nan))
