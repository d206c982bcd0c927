"""Views of two resolutions reach every method: global and local crops, from the recipe to the exported encoder."""

import pytest
import torch
from PIL import Image
from test_train_guard import TRAINED, narrow

from frossl.core.types import Loss
from frossl.losses import frossl
from frossl.methods import METHODS
from frossl.runs.config import Config
from frossl.runs.directory import read_run
from frossl.runs.log import read_rows
from frossl.train.pretrain import pretrain


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for i in range(24):
        pixels = torch.randint(0, 256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        (root / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(root / f"class{i % 2}" / f"{i:02d}.png")
    return root


@pytest.mark.parametrize("name", TRAINED)
def test_every_method_trains_on_global_and_local_crops(name, images, tmp_path):
    outcome = pretrain(
        Config(
            data=str(images),
            out=tmp_path,
            method=name,
            objective=narrow(name),
            view_recipe="multicrop",
            backbone_options='{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}',
            batch=8,
            length="2it",
            log_every=1,
            device="cpu",
            precision="32",
            size=16,
            evaluate=False,
        )
    )
    rows = [row for row in read_rows(outcome.run / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["grad_norm"] > 0 for row in rows)
    assert [(group.count, group.size) for group in read_run(outcome.run)[1]] == [(2, 16), (6, 7)]


class Own(METHODS["frossl"]):
    """A method outside of the package, which calls the loss itself."""

    def forward(self, h_VNF, moment) -> Loss:
        return frossl(self.project(self.projector, h_VNF))


@pytest.mark.parametrize("method", ["frossl", f"{__name__}:Own"])
@pytest.mark.filterwarnings("error:embeddings .* are read as")
def test_a_method_with_more_views_than_images_is_not_warned(method, images, tmp_path):
    options = '{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}'
    config = Config(
        data=str(images),
        out=tmp_path,
        method=method,
        objective=METHODS["frossl"].Config(projector="16-bn-relu-16"),
        view_recipe="multicrop",
        backbone_options=options,
        batch=4,
        length="1it",
        device="cpu",
        precision="32",
        evaluate=False,
    )
    assert pretrain(config).stopped is None
