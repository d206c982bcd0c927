"""The benchmark of GPUs runs from end to end where there is none, at the size of a toy."""

from __future__ import annotations

import pytest
import torch

gpu = pytest.importorskip("gpu", reason="benchmarks/ is in the repository only")


@pytest.mark.parametrize("part", ["parity", "speed", "methods"])
def test_a_part_fills_its_rows_once_and_the_page_shows_them(tmp_path, capsys, part, monkeypatch):
    monkeypatch.setattr(gpu, "device_of", lambda config: torch.device("cpu"))
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)  # lightly is another project's speed
    out = tmp_path / "gpu.jsonl"
    gpu.main([part, "--toy", "--out", str(out)])
    rows = gpu.read_rows(out)
    assert rows
    assert not [row for row in rows if "error" in row]
    for row in rows:
        assert row.get("same_bits", True)
        assert row.get("worst_grey", 0.0) == row.get("worst", 0.0) == 0.0  # the CPU against itself
    gpu.main([part, "--toy", "--out", str(out)])
    assert len(gpu.read_rows(out)) == len(rows)
    capsys.readouterr()
    gpu.main(["page", "--out", str(out)])
    page = capsys.readouterr().out
    assert all(row["what"] in page for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_what_to_do(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["speed"])
    assert "--toy" in capsys.readouterr().err
