from __future__ import annotations

import numpy as np
from PIL import Image

from frossl.runs.config import Config
from frossl.runs.data import load_evaluation_data


def test_a_column_of_the_run_is_used_in_other_data_where_they_have_it(tmp_path):
    for name, column in (("own", "site"), ("same", "site"), ("other", "label")):
        (tmp_path / name).mkdir()
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
        rows = "".join(f"{i}.png,{'ab'[i % 2]},{'xy'[i // 2]}\n" for i in range(4))
        (tmp_path / name / "labels.csv").write_text(f"file,{column},second\n{rows}")
    own = Config(data=str(tmp_path / "own"), label_column="site", held_out=0.5)
    for name in ("same", "other"):
        data, called = load_evaluation_data(tmp_path / "run", own, str(tmp_path / name))
        assert (data.classes, called) == (("a", "b"), str(tmp_path / name))
