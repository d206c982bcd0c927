from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from frossl.runs.config import Config
from frossl.train.pretrain import pretrain


@pytest.mark.parametrize("copies", [True, False])
def test_a_run_ends_with_a_warning_of_copies_across_the_split(tmp_path, copies):
    (tmp_path / "set").mkdir()
    for i in range(20):
        pixels = np.random.default_rng(i // 4 if copies else i).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"burst{i // 4}_{i}.png")
    said = io.StringIO()
    how = {"backbone_options": '{"channels": [8, 8, 8, 8]}', "device": "cpu", "evaluate": False, "out": tmp_path}
    config = Config(data=str(tmp_path / "set"), method="random", **how)
    run = pretrain(config, console=Console(file=said, width=200)).run
    assert ("2 of 2 held-out images" in said.getvalue()) == ("--group" in said.getvalue()) == copies
    assert ("--group" in (run / "report.html").read_text()) == copies
