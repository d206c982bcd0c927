"""Near-duplicates: neighbours in features, or as small pictures, whose pixels are correlated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from frossl.core.linalg import unit_rows
from frossl.curate.neighbours import nearest
from frossl.data.whole import HELD_OUT

SIDE = 32
"""Pixels on a side of the pictures that are compared."""
STEPS = ((SIDE // 2, 2, 0.5), (SIDE, 3, 0.8))
"""Sizes in pixels at which pairs are compared after a quarter of the size: the side, the largest shift of one picture
against the other, and the least correlation at the size before."""
ALIKE = 0.95
"""Correlation of pixels from which two pictures are near-duplicates (docs/results/curation.md)."""
NEIGHBOURS = 10


@dataclass(frozen=True)
class Group:
    """Images that are near-duplicates of each other, the one to keep first; ``alike`` is their least correlation."""

    images: tuple[int, ...]
    alike: float


def candidate_pairs(index_NK: Tensor) -> Tensor:
    """Pairs ``(P, 2)`` of images, the smaller index first, one of which is among the neighbours of the other."""
    own = torch.arange(len(index_NK)).repeat_interleave(index_NK.shape[1])
    return torch.stack([own, index_NK.flatten()], 1).sort(1).values.unique(dim=0)


def both_candidates(index_NK: Tensor, pictures_NCHW: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Pairs of neighbours in features, and of neighbours in pictures of a quarter of the size.

    Features may change with brightness or a shift, small pictures with a crop or rotation.
    """
    coarse = _coarse(pictures_NCHW)
    own = nearest(coarse, coarse, NEIGHBOURS, same=True, device=device)[1]
    return torch.cat([candidate_pairs(index_NK), candidate_pairs(own)]).unique(dim=0)


@torch.no_grad()
def correlations(pictures_NCHW: Tensor, pairs_P2: Tensor) -> Tensor:
    """Correlation ``(P,)`` of all pixels and channels of two uint8 pictures at the best shift of one.

    The middle of one is compared with all windows of its size in the other, and the reverse, as a shifted picture has
    lost a margin. Brightness and contrast make no difference. Pairs that are not alike at a smaller size keep their
    correlation there, which saves most of the time. Equal pictures have 1, even without any contrast.
    """
    coarse = _coarse(pictures_NCHW)
    found = torch.cat([(coarse[part[:, 0]] * coarse[part[:, 1]]).sum(1) for part in pairs_P2.split(2**16)])
    for side, shift, least in STEPS:
        alike = (found >= least).nonzero()[:, 0]
        for places in alike.split(512) if len(alike) else ():
            one, other = (adaptive_avg_pool2d(pictures_NCHW[pairs_P2[places, i]].float(), side) for i in (0, 1))
            found[places] = torch.maximum(_best_shift(one, other, shift), _best_shift(other, one, shift))
    for start, part in enumerate(pairs_P2.split(2**14)):
        same = (pictures_NCHW[part[:, 0]] == pictures_NCHW[part[:, 1]]).flatten(1).all(1)
        found[start * 2**14 :][: len(part)][same] = 1.0
    return found


def _coarse(pictures_NCHW: Tensor) -> Tensor:
    """Pictures at a quarter of their size as rows whose products are correlations."""
    return torch.cat([_flat(adaptive_avg_pool2d(part.float(), SIDE // 4)) for part in pictures_NCHW.split(4096)])


def _flat(x_PCHW: Tensor) -> Tensor:
    """Rows of mean 0 and length 1, so that products are correlations."""
    x = x_PCHW.flatten(1)
    return unit_rows(x - x.mean(1, keepdim=True))


def _best_shift(one_PCHW: Tensor, other_PCHW: Tensor, shift: int) -> Tensor:
    """The largest correlation ``(P,)`` of the middle of one picture with a window of its size in the other."""
    pairs, channels, side, _ = one_PCHW.shape
    inner = side - 2 * shift
    middle = _flat(one_PCHW[:, :, shift:-shift, shift:-shift]).view(pairs, channels, inner, inner)
    other = other_PCHW - other_PCHW.mean((1, 2, 3), keepdim=True)
    # A convolution with a kernel for each pair; windows written out would take thirty times the memory.
    dots = conv2d(other.reshape(1, pairs * channels, side, side), middle, groups=pairs)[0]
    exact = other.double()  # as a window with little contrast has a variance much below its square
    total, square = (_window_sums(x.sum(1), inner) for x in (exact, exact.square()))
    norm = (square - total.square() / (channels * inner**2)).clamp_min(0).sqrt()
    return (dots / norm.clamp_min(1e-6)).flatten(1).max(1).values.float()


def _window_sums(x_PHW: Tensor, side: int) -> Tensor:
    """Sums over all windows of ``side`` pixels."""
    return x_PHW.unfold(1, side, 1).sum(-1).unfold(2, side, 1).sum(-1)


def near_duplicates(
    index_NK: Tensor,
    pictures_NCHW: Tensor,
    *,
    splits: Sequence[str] = (),
    pixels_of: Callable[[int], int] = lambda i: 0,
    alike: float = ALIKE,
    device: torch.device | str = "cpu",
) -> list[Group]:
    """Groups of near-duplicates, the largest first, among the neighbours ``index_NK`` in features and in pictures.

    The image to keep is a held-out one, as scores depend on it, else that of most pixels, else the first.
    """
    pairs = both_candidates(index_NK, pictures_NCHW, device)
    values = correlations(pictures_NCHW, pairs)
    return group_pairs(pairs[values >= alike], values[values >= alike], len(index_NK), splits, pixels_of)


def group_pairs(
    pairs_P2: Tensor,
    values_P: Tensor,
    count: int,
    splits: Sequence[str] = (),
    pixels_of: Callable[[int], int] = lambda i: 0,
) -> list[Group]:
    """The connected components of the graph of ``pairs``, each with the least value of its pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    a, b = pairs_P2.numpy().T
    _, of = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (count, count)), directed=False)
    members: dict[int, list[int]] = {}
    for i in np.unique(np.concatenate([a, b])).tolist():
        members.setdefault(int(of[i]), []).append(i)
    least = dict.fromkeys(members, 1.0)
    for i, value in zip(a.tolist(), values_P.tolist(), strict=True):
        least[int(of[i])] = min(least[int(of[i])], value)

    def order(i: int) -> tuple[bool, int, int]:
        return not (splits and splits[i] == HELD_OUT), -pixels_of(i), i

    found = [Group(tuple(sorted(images, key=order)), least[group]) for group, images in members.items()]
    return sorted(found, key=lambda group: (-len(group.images), -group.alike, group.images))
