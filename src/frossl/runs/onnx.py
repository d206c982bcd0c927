"""Encoders as ONNX files."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from frossl import __version__
from frossl.core.files import write_atomically
from frossl.core.types import UserError
from frossl.nn.alike import random_images
from frossl.nn.encoder import EncoderSpec

LIMIT = 1e-5
"""Largest difference of a feature from torch's, relative to the largest feature."""
BATCHES = (1, 3)
"""Batch sizes that are compared."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IMAGES, FEATURES = "images", "features"


def write_onnx(output: Path, encoder: nn.Module, spec: EncoderSpec) -> list[str]:
    """Writes ``encoder``, in eval mode, as a graph from images ``(B, C, S, S)``, any B, to features ``(B, F)``.

    Its metadata have size, mean, std, range and others as JSON. Returns the Python that runs it.

    Raises:
        UserError: the extra is not installed, torch cannot export the net, or ONNX Runtime gives other features.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX files need {', '.join(missing)}: pip install 'frossl[onnx]'")
    model = _program(encoder, spec)
    _describe(model, spec)
    try:
        whole = model.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise UserError(f"{spec.title} is more than the 2 GB that an ONNX file holds ({error})") from None
    difference = _difference(whole, encoder, spec)
    if not difference <= LIMIT:
        raise UserError(
            f"{output} was not written: ONNX Runtime gives other features of {spec.title} than torch, by "
            f"{difference:.1e} of the largest, where {LIMIT:g} is rounding"
        )
    write_atomically(output, lambda temporary: temporary.write_bytes(whole))
    return [
        "import onnxruntime",
        f"model = onnxruntime.InferenceSession({str(output)!r})",
        f'{FEATURES} = lambda {IMAGES}: model.run(None, {{"{IMAGES}": {IMAGES}}})[0]  # float32 arrays, any batch',
        f"# differs from torch by {difference:.1e} of the largest feature ({' and '.join(map(str, BATCHES))} images)",
    ]


def _program(encoder: nn.Module, spec: EncoderSpec) -> Any:
    """The ONNX model of ``encoder``."""
    try:
        with _silence():
            program = torch.onnx.export(
                encoder,
                (random_images(spec.channels, spec.size, 2),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[IMAGES],
                output_names=[FEATURES],
                verbose=False,
            )
        assert program is not None
        return program.model_proto
    except Exception as error:  # of the exporter, whose errors are of many kinds
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"torch cannot write {spec.title} as ONNX: {said}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Suppresses the output, logs and warnings of the exporter."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _describe(model: Any, spec: EncoderSpec) -> None:
    """Writes how to feed the model into its metadata, and removes the paths of the local files of its nodes."""
    for part in (model.graph, *model.functions):
        _forget_places(part)
    names = ("channels", "size", "mean", "std", "values", "range", "interpolation")
    about = {"architecture": spec.title, **{name: getattr(spec, name) for name in names}}
    model.producer_name, model.producer_version = "frossl", __version__
    del model.metadata_props[:]
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))


def _forget_places(part: Any) -> None:
    """Empties the documentation and metadata of a graph or function, of its contents, and of the graphs in them."""
    values = [getattr(part, name, ()) for name in ("value_info", "input", "output", "initializer")]
    for one in (part, *part.node, *(v for of in values for v in of if not isinstance(v, str))):
        one.doc_string = ""
        del one.metadata_props[:]
    for graph in (graph for node in part.node for a in node.attribute for graph in (a.g, *a.graphs) if graph.node):
        _forget_places(graph)


@torch.no_grad()
def _difference(whole: bytes, encoder: nn.Module, spec: EncoderSpec) -> float:
    """The largest difference of features of random images between ONNX Runtime and torch, over the largest feature."""
    import onnxruntime

    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    found = []
    for batch in BATCHES:
        x = random_images(spec.channels, spec.size, batch)
        ours, theirs = encoder(x), torch.from_numpy(session.run(None, {IMAGES: x.numpy()})[0])
        if ours.shape != theirs.shape:
            raise UserError(f"ONNX Runtime gives {tuple(theirs.shape)} of {spec.title}, torch {tuple(ours.shape)}")
        found.append((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-30))
    return torch.stack(found).max().item()
