"""The losses of a fixed short run of every method, kept in the tree: a change of the numerics must be meant.

Capture anew, in a commit of its own that says why, with ``src``, ``tests`` and ``tests/train`` on ``PYTHONPATH``:
``python tests/test_golden.py frossl``.
"""

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from test_train_guard import TRAINED, narrow

from frossl.core.config import to_plain
from frossl.methods import METHODS
from frossl.runs.config import Config
from frossl.runs.log import read_rows
from frossl.train.pretrain import pretrain

pytestmark = pytest.mark.usefixtures("no_reports")

GOLDEN = Path(__file__).parent / "golden"
PLACE = (
    "kind",
    "step",
    "epoch",
    "images",
    "seconds",
    "lr",
    "grad_norm",
    "momentum",
    "teacher_temperature",
    "probe_on_views",
)
"""What a row holds beside the loss and its terms."""


def losses(root: Path, method: str) -> list[dict[str, float]]:
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for i in range(40):
        # Smooth images, so that views of one image are alike as they are in photographs.
        coarse = torch.rand(1, 3, 4, 4, generator=generator)
        image = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")[0]
        path = root / "images" / (f"class{i % 2}" if METHODS[method].uses_labels else "") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(path)
    own = METHODS["frossl"].Config(projector="32-bn-relu-32", invariance_weight=0.5)
    config = Config(
        data=str(root / "images"),
        method=method,
        objective=own if method == "frossl" else narrow(method),
        backbone_options='{"channels": [8, 8, 8, 8], "layers": [1, 1, 1, 1]}',
        views=3,
        size=16,
        batch=12,
        length="10it",
        precision="64",
        log_every=1,
        evaluate=False,
        telemetry_every=0,
        monitor_every="100%",
        out=root / "runs",
        data_dir=root / "data",
        device="cpu",
    )
    rows = read_rows(pretrain(config).run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in PLACE} for row in rows if row["kind"] == "train"]


def here() -> dict[str, str]:
    """Where losses are promised to the bit."""
    flags = hashlib.sha256(cpu().encode()).hexdigest()[:16]
    return {"machine": platform.machine(), "torch": torch.__version__, "cpu_flags": flags}


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("flags")), "unknown")


@pytest.mark.parametrize("method", TRAINED)
def test_the_first_losses_are_the_golden_ones(tmp_path, method):
    golden = json.loads((GOLDEN / f"{method}.json").read_text())
    got = losses(tmp_path, method)
    assert len(got) == len(golden["losses"])
    if golden["captured"] == here():
        assert got == golden["losses"]
    for now, then in zip(got, golden["losses"], strict=True):
        assert now == pytest.approx(then, rel=1e-6, abs=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as root:
            captured = {"captured": here(), "losses": losses(Path(root), name)}
        (GOLDEN / f"{name}.json").write_text(json.dumps(to_plain(captured), indent=1) + "\n")
