"""The encoder of a run as a folder that others load: weights, timm's configuration, a card and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from frossl.core.files import write_folder, write_text
from frossl.core.types import UserError
from frossl.data import DATASETS
from frossl.evals.suite import Evaluation
from frossl.nn.alike import random_images
from frossl.nn.backbones import SMALL_STEMS, sized_options, takes_one_size
from frossl.nn.encoder import EncoderSpec, save_encoder
from frossl.nn.published import OWN_WEIGHTS
from frossl.runs.data import source_of
from frossl.runs.directory import Weights, stopped_at
from frossl.runs.export import encoder_for_others, in_timm
from frossl.runs.record import Record, read_record

WEIGHTS, CONFIG, CARD, SUMS = "model.safetensors", "config.json", "README.md", "SHA256SUMS"
FILES = (WEIGHTS, CONFIG, CARD, SUMS)
UNKNOWN = "unknown"
PUBLIC_ORIGIN = re.compile(r"timm:[\w.-]+|hf-hub:[\w.-]+/[\w.-]+(@[\w.-]+)?|lite0")
"""Origins that name what is public; another one may be a path."""


@dataclass(frozen=True)
class Published:
    """What is published, for its card; ``load`` is Python that loads it as ``model``, ``sums`` SHA-256 of its files.

    ``data`` is the name of a named data set, else empty. ``evaluation`` is that on the run's own data. ``started``
    says from which weights under which licence, ``base`` is their repository on the Hub; all empty for random ones.
    """

    record: Record
    spec: EncoderSpec
    weights: Weights
    licence: str
    data: str
    evaluation: Evaluation | None
    stopped: str
    started: str = ""
    base: str = ""
    load: list[str] = field(default_factory=list)
    sums: dict[str, str] = field(default_factory=dict)

    @property
    def in_timm(self) -> bool:
        """Whether timm builds it from its configuration, which knows no small stems."""
        return self.spec.stem not in SMALL_STEMS


def publish_encoder(
    run: Path, to: str, card: Callable[[Published], str], *, licence: str = "", weights: Weights = "online"
) -> Published:
    """Writes the encoder of ``run``, or its moving average, to a folder or to ``hf:ORG/NAME``, with its ``card``.

    It is loaded as its card says before it is put in place, and must give bit-identical features of random images. An
    existing folder is replaced if it is empty, or unchanged since :func:`publish_encoder` wrote it. No path or name of
    this machine is in it.

    Raises:
        UserError: no such run or average, a module of the user's own, a folder of something else, other features, or
            the Hub says no.
    """
    if licence and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", licence):
        raise UserError(f"--licence {licence!r}: give its identifier, such as mit, apache-2.0 or cc-by-4.0")
    repository = repository_of(to)
    folder = Path(os.path.expanduser(to)).resolve()
    if not repository:
        _refuse_others(folder)
    encoder, spec = encoder_for_others(run, weights)
    published = _about(run, spec, weights, licence)
    published = replace(published, load=_load(published, encoder, repository))
    if not repository:
        write_folder(folder, lambda place: _write(place, encoder, published, card))
        return published
    with TemporaryDirectory() as temporary:
        _write(Path(temporary), encoder, published, card)
        upload(Path(temporary), repository, replaced=[CONFIG])
    return published


def _about(run: Path, spec: EncoderSpec, weights: Weights, licence: str) -> Published:
    record = read_record(run)
    data = record.config["data"]
    evaluations = {e.source or name: e for name, e in record.evaluations.items()}
    origin = spec.origin if PUBLIC_ORIGIN.fullmatch(spec.origin) else OWN_WEIGHTS * bool(spec.origin)
    chosen = licence or spec.licence or UNKNOWN
    under = f"under the licence {spec.licence}" if spec.licence else "whose licence is not known"
    return Published(
        record=record,
        spec=replace(spec, origin=origin, licence="" if chosen == UNKNOWN else chosen),
        weights=weights,
        licence=chosen,
        data=data if data in DATASETS else "",
        evaluation=evaluations.get(source_of(run, data), evaluations.get(Path(data).name)),
        stopped=stopped_at(run),
        started=f"{origin}, {under}" if origin else "",
        base=_base(origin),
    )


def _base(origin: str) -> str:
    """The repository of published weights on the Hub, if any."""
    kind, _, name = origin.partition(":")
    if kind == "timm":
        import timm

        about = timm.get_pretrained_cfg(name)
        return about.hf_hub_id or "" if about else ""
    return name.partition("@")[0]


def _load(published: Published, encoder: nn.Module, repository: str) -> list[str]:
    """Python that loads what is published as ``model``."""
    if published.in_timm:
        place = f"hf-hub:{repository}" if repository else "local-dir:path/to/this/folder"
        return ["import timm", f'model = timm.create_model("{place}", pretrained=True).eval()']
    fetched = f'huggingface_hub.hf_hub_download("{repository}", "{WEIGHTS}")'
    place = ["import huggingface_hub", f"weights = {fetched}"] if repository else [f'weights = "{WEIGHTS}"']
    _, lines = in_timm(published.spec, encoder)
    return [*place, *lines, "model.load_state_dict(safetensors.torch.load_file(weights))", "model.eval()"]


def _write(folder: Path, encoder: nn.Module, published: Published, card: Callable[[Published], str]) -> None:
    """Fills ``folder``; raises UserError if the encoder loaded from it gives other features."""
    save_encoder(folder / WEIGHTS, encoder, published.spec)
    if published.in_timm:
        config = timm_config(published.spec, published.licence)
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    _refuse_other_features(folder, encoder, published)
    write_text(folder / CARD, card(replace(published, sums=_sums(folder))))
    write_text(folder / SUMS, "\n".join(_lines(_sums(folder))) + "\n")


def timm_config(spec: EncoderSpec, licence: str) -> dict[str, Any]:
    """timm's ``config.json`` of an encoder that timm builds, as its ``save_config_for_hf`` writes it."""
    import timm

    about = timm.get_pretrained_cfg(spec.backbone)
    assert about is not None
    flexible = spec.options.get("dynamic_img_size") or not spec.options.get("strict_img_size", True)
    return {
        "architecture": spec.backbone,
        "num_classes": 0,
        "num_features": spec.features,
        "model_args": {"in_chans": spec.channels, **sized_options(spec.backbone, spec.size, spec.options)},
        "pretrained_cfg": {
            "input_size": [spec.channels, spec.size, spec.size],
            "fixed_input_size": takes_one_size(spec.backbone) and not flexible,
            "interpolation": spec.interpolation,
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": spec.mean,
            "std": spec.std,
            "num_classes": 0,
            "pool_size": None,
            # With other numbers of channels timm up to 1.0.30 would not load the weights of a layer with this name.
            "first_conv": about.first_conv if spec.channels in (1, 3) else None,
            "classifier": about.classifier,
            "license": licence,
        },
    }


@torch.no_grad()
def _refuse_other_features(folder: Path, encoder: nn.Module, published: Published) -> None:
    """Loads ``folder`` as its card says; raises UserError if features differ from those of ``encoder``."""
    import timm

    title = published.spec.title
    x = random_images(published.spec.channels, published.spec.size, 2)
    ours = encoder(x)
    if not ours.isfinite().all():
        raise UserError(f"{title} gives features that are not finite; nothing was published")
    try:
        if published.in_timm:
            model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        else:
            names: dict[str, Any] = {"weights": str(folder / WEIGHTS)}
            exec("\n".join(line for line in published.load if not line.startswith("weights = ")), names)
            model = names["model"]
        theirs: Tensor = model.eval()(x)
    except Exception as error:  # timm's, of many kinds
        about = f"timm {timm.__version__} (1.0.26 or later is needed)"
        reason = first_line(error)
        raise UserError(f"{about} does not load {title} as published: {reason}; nothing was published") from error
    if not torch.equal(ours, theirs):
        raise UserError(f"timm {timm.__version__} gives other features of {title} as published; nothing was published")


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of ``folder``, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def _lines(sums: dict[str, str]) -> list[str]:
    """Checksums in the format of sha256sum."""
    return [f"{digest}  {name}" for name, digest in sums.items()]


def _refuse_others(folder: Path) -> None:
    """Raises UserError if ``folder`` exists and differs in any byte from what publish wrote."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; --to takes a folder, or {PREFIX}ORG/NAME")
    strange = sorted(path.name for path in folder.iterdir() if path.name not in FILES or not path.is_file())
    if not strange:
        known = (folder / SUMS).read_text(errors="replace").splitlines() if (folder / SUMS).exists() else []
        strange = [line.split()[1] for line in _lines(_sums(folder)) if line not in known and not line.endswith(SUMS)]
    if strange:
        raise UserError(
            f"{folder} holds what publish did not write: {', '.join(strange[:3])}{' and others' * (len(strange) > 3)}. "
            "Give a new or empty folder, or one that publish wrote and nobody changed"
        )


PREFIX = "hf:"
"""Marks the name of a repository where a folder is possible too."""
INSTEAD = "write a folder, which can be uploaded later: --to FOLDER"


def repository_of(to: str) -> str:
    """``ORG/NAME`` of ``hf:ORG/NAME``, empty for anything else.

    Raises:
        UserError: the Hub does not allow the name, or there is no token.
    """
    if not to.startswith(PREFIX):
        return ""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = to.removeprefix(PREFIX)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--to {to}: {first_line(error)}. Give {PREFIX}ORG/NAME, or the path of a folder") from None
    if "/" not in name:
        raise UserError(f"--to {to}: give {PREFIX}ORG/NAME with the user or organisation, or the path of a folder")
    if not get_token():
        raise UserError(
            f"--to {to}: there is no token for the Hugging Face Hub. Run hf auth login, or set HF_TOKEN; or {INSTEAD}"
        )
    return name


def upload(folder: Path, repository: str, replaced: Sequence[str]) -> None:
    """Creates the repository if it does not exist, and uploads ``folder`` in one commit.

    Files with a name in ``replaced`` are removed from the repository where ``folder`` has none.

    Raises:
        UserError: the Hub or the network refuses.
    """
    from huggingface_hub import HfApi

    message = "Publish an encoder of frossl"
    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, delete_patterns=list(replaced)
        )
    except Exception as error:  # its HTTP library, and so the class of the error, depends on the version
        raise UserError(
            f"{repository} could not be written on the Hugging Face Hub: {first_line(error)}. No file there was "
            f"changed. Check the name, the token and the network; or {INSTEAD}"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of a message, without a full stop, or the name of an error without one."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
