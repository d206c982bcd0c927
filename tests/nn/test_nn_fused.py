"""Batch norms folded into convolutions."""

import torch
from torch import nn

from frossl.nn.backbones import build_backbone
from frossl.nn.fused import without_batch_norms

TINY = {"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}


def settled(name: str = "resnet18", **options) -> nn.Module:
    """An encoder in eval mode whose batch norms have statistics and scales of their own."""
    torch.manual_seed(0)
    encoder = build_backbone(name, size=32, options=options)
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return encoder.eval()


def test_features_are_the_same_without_any_batch_norm():
    encoder, x = settled(**TINY), torch.randn(4, 3, 32, 32)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    folded = without_batch_norms(encoder, x)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    expected = encoder(x)
    assert (folded(x) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())


def test_an_encoder_without_batch_norms_is_itself():
    encoder = settled("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, patch_size=8)
    assert without_batch_norms(encoder, torch.randn(2, 3, 32, 32)) is encoder


class Branching(nn.Module):
    """Cannot be traced, as what it does depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x).flatten(1) if x.sum() > 0 else x.flatten(1)


class Noisy(nn.Module):
    """Traced without complaint, with a number drawn once that is drawn anew at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).flatten(1) * torch.rand(())


def test_what_cannot_be_traced_or_would_differ_is_itself():
    for encoder in (Branching().eval(), Noisy().eval()):
        x = torch.rand(2, 3, 4, 4)
        assert without_batch_norms(encoder, x) is encoder
