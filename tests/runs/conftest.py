"""Encoders without the runs that trained them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from frossl.nn.encoder import EncoderSpec, save_encoder


@pytest.fixture
def run(tmp_path):
    """Makes a directory with an encoder, whose batch norms have seen images, and as much of a run as export reads."""

    def make(backbone: str, **changes):
        plain = {"channels": 3, "size": 64, "stem": "imagenet", "features": 0, "mean": (0.5,) * 3, "std": (0.2,) * 3}
        spec = EncoderSpec(**{"backbone": backbone, **plain, **changes})
        torch.manual_seed(0)
        encoder = spec.build()
        with torch.no_grad():
            h = encoder(torch.randn(4, spec.channels, spec.size, spec.size))
        spec = replace(spec, features=h.shape[1])
        config = {"data": "images", "method": "frossl", "objective": {}, "length": "1ep"}
        about = {"frossl": "0", "config": config, "views": [], "encoder": {}, "images": [8, 8], "batch": 8}
        (tmp_path / "config.json").write_text(json.dumps(about))
        save_encoder(tmp_path / "encoder.safetensors", encoder, spec)
        return tmp_path

    return make
