"""Files of embeddings: what was written is read, an interrupted one goes on, another encoder begins anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from frossl.core.types import UserError
from frossl.nn.encoder import EncoderSpec
from frossl.runs.embeddings import (
    About,
    Parts,
    check_output,
    encoder_checksum,
    is_embeddings,
    read_about,
    read_embeddings,
)

SPEC = EncoderSpec(backbone="x", channels=3, size=8, stem="small", features=4, mean=(0.5,) * 3, std=(0.5,) * 3)


def about(dtype: str = "float32", checksum: str = "c") -> About:
    return About(
        encoder="e", checksum=checksum, title="net", size=8, features=4, dtype=dtype, source="s", options={"seed": 0},
        targets="classes", images="d", count=5,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["e.npz", "e.parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_was_written_in_parts_is_read_without_the_unreadable(tmp_path, name, dtype):
    x = np.arange(20, dtype=dtype).reshape(5, 4)
    parts = Parts(tmp_path / name, about(dtype))
    parts.add(x[:3], ["", "broken", ""])
    parts.add(x[3:], ["", ""])
    paths, labels = [f"é/{i},.png" for i in range(5)], ["a", None, "b", None, "a"]
    parts.join(paths, ["train"] * 4 + ["held-out"], labels, {"other.png": "empty"})
    found = read_embeddings(tmp_path / name)
    assert np.array_equal(found.vectors, x[[0, 2, 3, 4]])
    assert found.vectors.dtype == dtype
    assert found.rows == [0, 2, 3, 4]
    assert found.paths == [paths[i] for i in (0, 2, 3, 4)]
    assert found.splits == ["train"] * 3 + ["held-out"]
    assert found.labels == ["a", "b", None, "a"]
    assert found.unreadable == {"other.png": "empty", paths[1]: "broken"}
    assert found.about == about(dtype) == read_about(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert len(found.frame()) == 4


def test_parts_of_the_same_images_and_encoder_are_kept_and_of_another_removed(tmp_path):
    out = tmp_path / "e.npz"
    Parts(out, about()).add(np.ones((3, 4), "float32"), [""] * 3)
    assert Parts(out, about()).done == 3
    assert Parts(out, replace(about(), targets=None, options={"seed": 0, "labels": False})).done == 3
    assert Parts(out, about(checksum="other")).done == 0
    assert Parts(out, about()).done == 0


def test_parquet_can_be_read_by_others(tmp_path):
    import pyarrow.parquet as pq

    parts = Parts(tmp_path / "e.parquet", about())
    parts.add(np.ones((2, 4), "float32"), ["", ""])
    parts.join(["a", "b"], ["", ""], [None, "x"])
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names == ["row", "path", "split", "label", "vector", "encoder", "checksum"]
    assert table.column("vector")[0].as_py() == [1.0] * 4
    assert table.column("checksum").to_pylist() == ["c", "c"]


def test_the_checksum_is_of_weights_and_how_they_are_fed():
    state = {"w": torch.arange(4.0), "n": torch.tensor(3)}
    same = encoder_checksum({"n": torch.tensor(3), "w": torch.arange(4.0)}, SPEC)
    assert encoder_checksum(state, SPEC) == same
    assert encoder_checksum(state | {"w": -torch.arange(4.0)}, SPEC) != same
    assert encoder_checksum(state, EncoderSpec(**{**SPEC.__dict__, "size": 16})) != same


def test_files_of_others_are_no_embeddings(tmp_path):
    np.savez(tmp_path / "images.npz", images=np.ones(3))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    for name in ("images.npz", "broken.parquet", "none.npz", "."):
        assert not is_embeddings(str(tmp_path / name))
    with pytest.raises(UserError, match="does not hold embeddings"):
        read_embeddings(tmp_path / "images.npz")


def test_outputs_that_cannot_be_are_refused_before_anything_is_encoded(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"\.parquet or \.npz"):
        check_output(tmp_path / "e.csv")
    with pytest.raises(UserError, match="no folder"):
        check_output(tmp_path / "none" / "e.npz")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"frossl\[explore\]"):
        check_output(tmp_path / "e.parquet")
    check_output(tmp_path / "e.npz")
