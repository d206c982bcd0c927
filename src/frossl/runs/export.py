"""Encoders for use elsewhere."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from frossl.core.types import UserError
from frossl.nn.backbones import SMALL_STEMS, sized_options
from frossl.nn.encoder import EncoderSpec, load_all_keys, load_encoder, save_encoder
from frossl.runs.directory import encoder_of, unfinished


def export_encoder(run: Path, output: Path, format: str = "timm") -> str:
    """Writes the encoder of ``run`` to ``output`` and returns the lines of Python that load it there.

    The keys are timm's names, which torchvision shares for ResNets. Before anything is written every key is loaded
    into the other library's model.

    Raises:
        UserError: no such run, a suffix other than .safetensors, or an architecture that torchvision has not.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: encoders are written as .safetensors; give a name that ends so")
    encoder, spec = load_encoder(encoder_of(run))
    model, lines = (_torchvision if format == "torchvision" else _timm)(spec)
    if spec.stem in SMALL_STEMS or (format == "torchvision" and spec.channels != 3):
        conv = encoder.get_submodule("conv1")
        assert isinstance(conv, nn.Conv2d)
        shape = f"{conv.in_channels}, {conv.out_channels}, {conv.kernel_size[0]}, {conv.stride[0]}, {conv.padding[0]}"
        model.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, bias=False)  # type: ignore[arg-type]
        lines.append(f"model.conv1 = torch.nn.Conv2d({shape}, bias=False)")
    if spec.stem in SMALL_STEMS:
        lines.append("model.maxpool = torch.nn.Identity()")
    load_all_keys(model, encoder.state_dict(), f"{format}'s {spec.backbone}")
    save_encoder(output, encoder, spec)
    lines.append(f"model.load_state_dict(safetensors.torch.load_file({str(output)!r}))  # every key fits")
    mean, std = ([round(value, 6) for value in values] for values in (spec.mean, spec.std))
    feed = f"images in [0, 1], {spec.size} pixels, minus {mean}, over {std}"
    lines.append(f"# feed it {feed}")
    return "\n".join([f"# {told}", *lines] if (told := unfinished(run)) else lines)


def _timm(spec: EncoderSpec) -> tuple[nn.Module, list[str]]:
    import timm

    chosen = sized_options(spec.backbone, spec.size, spec.options)
    options = "".join(f", {key}={value!r}" for key, value in chosen.items())
    call = f"timm.create_model({spec.backbone!r}, num_classes=0, in_chans={spec.channels}{options})"
    model = timm.create_model(spec.backbone, num_classes=0, in_chans=spec.channels, **chosen)
    return model, ["import safetensors.torch, timm, torch", f"model = {call}"]


def _torchvision(spec: EncoderSpec) -> tuple[nn.Module, list[str]]:
    import torchvision

    if not spec.backbone.startswith("resnet") or spec.options or not hasattr(torchvision.models, spec.backbone):
        with_options = f" with options {spec.options}" if spec.options else ""
        raise UserError(f"torchvision has no {spec.backbone!r}{with_options}; export for timm")
    model = getattr(torchvision.models, spec.backbone)()
    model.fc = nn.Identity()
    lines = ["import safetensors.torch, torch, torchvision", f"model = torchvision.models.{spec.backbone}()"]
    return model, [*lines, "model.fc = torch.nn.Identity()"]
