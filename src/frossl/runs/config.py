"""The configuration of a run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import tyro

from frossl.core.device import Precision
from frossl.core.length import Length
from frossl.core.progress import GEOMETRIC
from frossl.core.registry import unknown_name
from frossl.core.types import UserError
from frossl.data.options import DataOptions
from frossl.methods import find_method
from frossl.nn.optim import OPTIMIZERS
from frossl.views.recipes import VIEWS

M = TypeVar("M")
_ITS_DEFAULTS: Any = None
Device = Literal["auto", "cpu", "cuda", "mps"]
FREE_TO_CHANGE = (
    *("device", "deterministic", "workers", "data_dir", "evaluate", "wandb", "activation_checkpointing"),
    *("rank_timeout", "stall_timeout", "monitor_every", "monitor_ridge", "checkpoint_every", "keep_checkpoints"),
    *("log_every", "telemetry_every", "track_eigenvalues"),
)
"""Options that may differ when a run is resumed, as they do not change what is learned."""
_CHOICES = {"device": get_args(Device), "precision": get_args(Precision), "optimizer": OPTIMIZERS}
_LIMITS = {
    **dict.fromkeys(("lr", "clip", "layer_decay"), (0, True)),
    **dict.fromkeys(("weight_decay", "telemetry_every", "anchor"), (0, False)),
    **dict.fromkeys(("size", "micro_batch", "keep_checkpoints", "log_every"), (1, False)),
    **dict.fromkeys(("batch", "views"), (2, False)),  # images and views are compared
    **dict.fromkeys(("rank_timeout", "stall_timeout"), (5, False)),  # the heartbeat comes every second
}
"""The least value of a number, and whether it must be larger than that."""
_PARTS = ("ep", "it", "img", "min", "%")
_LENGTHS = {
    "length": (("ep", "it", "img", "view", "min"), False),
    "warmup": (_PARTS, True),
    "freeze": (_PARTS, True),
    "monitor_every": (_PARTS, False),
    "checkpoint_every": (_PARTS, False),
    "track_eigenvalues": (("ep", "it", "img"), True),
}
"""Units of a length, and whether it may be 0."""
_KEYWORDS = {"length": "auto", "monitor_every": GEOMETRIC}
"""Values of these options that are no lengths."""


@dataclass(frozen=True, kw_only=True)
class Images(DataOptions):
    """Which images, and how they are opened."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """folder of images, list, tar shards, Parquet, hf://datasets/ORG/NAME, arrays or a name (frossl list data)"""


@dataclass(frozen=True, kw_only=True)
class Config(Images, Generic[M]):
    """Everything that decides a pretraining run."""

    method: str = "frossl"
    """objective (frossl list methods), or module:loss or module:Class of your own"""
    objective: M = _ITS_DEFAULTS
    """options of the objective (its defaults if not given)"""
    recipe: str = "default"
    """where the defaults come from (frossl list recipes); flags given beside it win"""

    init: str | None = None
    """published weights to start from: RUN, FILE, timm:NAME.TAG, hf-hub:ORG/NAME, FOLDER or lite0 (random if none)"""
    freeze: str = "0%"
    """with --init, how long the encoder stays as it was while heads learn, such as 5%"""
    layer_decay: float = 1.0
    """factor of the learning rate from each layer to the one before it; 0.75 is usual for --init with ViTs"""
    anchor: float = 0.0
    """with --init, pull to the start: the share of the way back to it in a step, over the learning rate"""

    backbone: str = "resnet18"
    """encoder: any timm model name; with --init, the net of a file of weights that does not say"""
    backbone_options: str = "{}"
    """options for timm as JSON: '{"channels": [32, 64, 128, 256]}' is a ResNet of half width"""
    stem: Literal["auto", "imagenet", "small", "cifar"] = "auto"
    """first layers: imagenet leaves them; small 3x3 stride 2; cifar 3x3 stride 1 (the paper's, slow); auto by size"""

    views: int | None = None
    """views per image (the view recipe's number if not given)"""
    view_recipe: str = "auto"
    """augmentation: auto is natural, grey or satellite by channels; others by name (frossl list recipes)"""
    size: int | None = None
    """side of the views in pixels (the images' own up to 96, else 224, on a CPU 128; or the next that fits the net)"""
    progressive: tuple[int, ...] = ()
    """smaller sizes of the views to begin with, such as 16 24, each for an equal part of the run before that of size"""
    crop_scale: tuple[float, float] | None = None
    """smallest and largest share of the image's area a crop covers (the view recipe's if not given)"""

    length: str = "auto"
    """how long: 20ep, 5000it, 1e6img, 1e6view, 10min; auto is 100ep, or the whole epochs that fit in 30 min"""
    batch: int | None = None
    """images per step (128, or less for a small data set, if not given)"""
    optimizer: Literal["adamw", "adam", "sgd", "muon", "lars", "lars-original"] = "adamw"
    """muon orthogonalises the encoder's matrices; lars is as in the paper, lars-original with less trust and no clip"""
    lr: float | None = None
    """peak learning rate for a batch of 256, scaled by batch / 256 (0.002; with --init 0.001 if not given)"""
    weight_decay: float = 0.01
    """weight decay; biases and norms are never decayed"""
    warmup: str = "5%"
    """linear warm-up before the cosine, as a share of the run or a length"""
    clip: float | None = None
    """clip the norm of the gradient to this"""
    batch_norm: Literal["auto", "joint", "per_view", "frozen"] = "auto"
    """statistics of a batch over all views at once, or view by view (the public reference); frozen: the encoder keeps
    those it was published with; auto is joint, with --init frozen"""
    sync_batch_norm: bool = True
    """on several ranks, batch statistics over all of them; without, of each rank alone, which is another model"""
    micro_batch: int | None = None
    """images whose activations a rank holds at once; gradients stay those of the whole batch (the batch)"""
    activation_checkpointing: bool = False
    """hold inputs of the encoder's stages only, and compute the rest again in the backward pass"""
    precision: Precision = "auto"
    """auto is bf16 where the hardware has it, fp16 on cards that are fast in that alone, else 32; tf32 rounds products
    of 32 on NVIDIA cards; statistics of the objective are always 32 bit or wider"""
    device: Device = "auto"
    """where to compute"""
    deterministic: bool = False
    """the same bits in every run on one accelerator too, with slower algorithms; the CPU gives them anyway"""
    compile_views: bool = False
    """make the colours of views with a compiled kernel: faster after up to a minute; needs a compiler"""
    compile: bool = False
    """compile encoder and heads (torch.compile): faster after some minutes, with other rounding"""
    cuda_extras: bool = False
    """what has not run on a GPU yet: views in a CUDA stream of their own, batch norms over ranks by torch's kernels"""

    monitor_every: str = "10%"
    """how often kNN, probe and effective rank are taken on part of the data; geometric: after 1, 2, 3, 5, 8, 13, 21,
    34, 55, 89 and 100 % of the run"""
    monitor_ridge: bool = False
    """take a ridge probe too, fitted anew in closed form each time"""
    checkpoint_every: str = "10min"
    """how often the run is saved; also at its end and when it is interrupted"""
    keep_checkpoints: int = 2
    """how many of the newest are kept, and beside them the one with the best kNN"""
    log_every: int = 10
    """steps between rows of metrics.jsonl, and between checks that all was finite"""
    telemetry_every: int = 500
    """steps between spectra, more often at first; signs of collapse are looked for 5 to 25 times as often; 0: never"""
    track_eigenvalues: str | None = None
    """follow the leading eigenvalues step by step for so long, such as 2ep (eigenvalues.jsonl)"""
    wandb: bool = False
    """send the numbers to Weights & Biases too"""
    rank_timeout: float = 25.0
    """seconds without a sign of life from a rank, dead or frozen, until the run ends; its checkpoints stand"""
    stall_timeout: float = 600.0
    """seconds that ranks wait within a step for one that is alive but does not come, as on a slow disk"""
    evaluate: bool = True
    """evaluate against an untrained encoder and raw pixels at the end"""

    out: Path = Path("runs")
    """where run directories go"""
    name: str | None = None
    """name of the run directory (made from data and method if not given)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out))
        options = find_method(self.method).Config
        if self.objective is None:
            object.__setattr__(self, "objective", options())
        if not isinstance(self.objective, options):
            raise UserError(
                f"the objective is {type(self.objective).__qualname__}, but method {self.method!r} takes its own "
                "options: find_method(method).Config(), or leave objective out"
            )
        if both := {f.name for f in fields(options)} & {f.name for f in fields(self)}:
            raise UserError(
                f"--method {self.method} names options as every run has them: {', '.join(sorted(both))}. Rename them"
            )
        for name, known in {**_CHOICES, "view_recipe": ("auto", *VIEWS)}.items():  # recipes can be added
            if getattr(self, name) not in known:
                raise unknown_name(name.replace("_", " "), getattr(self, name), list(known))
        for name, (least, strictly) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not ((least < value if strictly else least <= value) and value < math.inf):
                bound = "more than" if strictly else "at least"
                raise UserError(f"--{name.replace('_', '-')} must be {bound} {least}, got {value}")
        for name, (units, zero) in _LENGTHS.items():
            text = getattr(self, name)
            if text in (None, _KEYWORDS.get(name)):
                continue
            length = Length.parse(text)
            if length.unit not in units or not (length.amount or zero):
                more = "" if zero else "more than nothing, "
                raise UserError(f"--{name.replace('_', '-')} must be {more}in {', '.join(units)}, got {text!r}")
        given = {"--freeze": Length.parse(self.freeze).amount, "--anchor": self.anchor}
        if self.init is None and any(given.values()):
            flags = " and ".join(flag for flag, value in given.items() if value)
            raise UserError(f"{flags}: only with --init, as random weights are nothing to stay near to")
        if self.batch_norm == "frozen" and self.init is None:
            raise UserError("--batch-norm frozen: only with --init, as batch norms of random weights know no images")
        if self.layer_decay > 1:
            raise UserError(f"--layer-decay {self.layer_decay:g}: give a factor of at most 1, such as 0.75")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            low, high = self.crop_scale
            raise UserError(f"--crop-scale {low:g} {high:g}: give two shares of the area, 0 < smallest <= largest <= 1")


def backbone_options(text: str) -> dict[str, Any]:
    """Parses options for timm; raises UserError if ``text`` is no JSON object."""
    try:
        options = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--backbone-options {text!r} is not JSON ({error})") from None
    if not isinstance(options, dict):
        raise UserError(f"--backbone-options must be a JSON object such as '{{\"drop_rate\": 0.1}}', got {text!r}")
    return options
