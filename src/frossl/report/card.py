"""The model card of a published encoder, as Markdown with the front matter of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from frossl.data import DATASETS
from frossl.evals.suite import ARMS, Evaluation
from frossl.evals.verdict import verdict
from frossl.methods import METHODS, Method
from frossl.nn.encoder import EncoderSpec
from frossl.report.arms import arms_of, augmentation_tables, evaluation_table
from frossl.report.table import markdown, minus
from frossl.runs.export import feed
from frossl.runs.publish import UNKNOWN, WEIGHTS, Published

TASK = "image-feature-extraction"
OWN_IMAGES = "own images"


def model_card(of: Published) -> str:
    """What was published, how it is loaded and fed, how good it is beside its controls, and how it came about.

    Nothing in it tells of paths, names of files, runs or classes, or of methods of one's own but that they are that.
    """
    objective, method = _method(of)
    averaged = ", the moving average of the encoder," * (of.weights == "averaged")
    how = f"pretrained with {objective}" if method.trains else "not trained, but for statistics of batch norms,"
    lines = [
        *_front_matter(of),
        f"# {of.spec.title}, {how} on {_data(of)}",
        "",
        f"Weights{averaged} that turn an image of {of.spec.size}×{of.spec.size} pixels into {of.spec.features:,} "
        f"features, made with frossl {of.record.about['frossl']}.",
        *_stopped(of),
        "",
        *_loading(of),
        *_section("What it takes", _input(of.spec)),
        *_quality(of),
        *_section("How it was trained", _training(of, objective)),
        *_section("Licence", _licence(of)),
        "## Files",
        "",
        "SHA-256, which `sha256sum -c SHA256SUMS` compares:",
        "",
        *(f"- `{name}` {digest}" for name, digest in of.sums.items()),
    ]
    return "\n".join(lines) + "\n"


def _front_matter(of: Published) -> list[str]:
    """In YAML, whose strings JSON's are. The Hub knows identifiers of licences, and ``other`` with a name."""
    _, method = _method(of)
    identified = re.fullmatch(r"[\w.+-]+", of.licence)
    licence = {"license": of.licence.lower()} if identified else {"license": "other", "license_name": of.licence}
    about: dict[str, Any] = licence
    about["library_name"] = "timm" if of.in_timm else "frossl"
    about["pipeline_tag"] = TASK
    about["tags"] = [TASK, "frossl", *["self-supervised-learning"] * (method.trains and not method.uses_labels)]
    about |= {"base_model": of.base} if of.base else {}
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in about.items()), "---", ""]


def _method(of: Published) -> tuple[str, type[Method]]:
    """The objective by name, and what it is; of one's own no name, as it is that of a file."""
    name = of.record.config["method"]
    return (name, METHODS[name]) if name in METHODS else ("an objective of its own", Method)


def _data(of: Published) -> str:
    return of.data or OWN_IMAGES


def _stopped(of: Published) -> list[str]:
    return ["", f"**Training was stopped before its end**, at {of.stopped}."] if of.stopped else []


def _loading(of: Published) -> list[str]:
    spec = of.spec
    mean, std = (json.dumps([round(value, 6) for value in values]) for values in (spec.mean, spec.std))
    why = [] if of.in_timm else [f"timm has no {spec.stem} stem, so it is put in the place of timm's:", ""]
    return [
        "## Load it",
        "",
        *why,
        "```python",
        *of.load,
        "```",
        "",
        f"In eval mode it takes images (N, {spec.channels}, {spec.size}, {spec.size}) in [0, 1], normalised:",
        "",
        "```python",
        "import torch",
        f"mean, std = (torch.tensor(values)[:, None, None] for values in ({mean}, {std}))",
        f"features = model((images - mean) / std)  # (N, {of.spec.features})",
        "```",
        "",
        f'With frossl: `encoder, spec = frossl.load_encoder("{WEIGHTS}")`.',
        "",
    ]


def _section(title: str, facts: Mapping[str, str]) -> list[str]:
    return [f"## {title}", "", *(f"- **{name}**: {value}" for name, value in facts.items()), ""]


def _input(spec: EncoderSpec) -> dict[str, str]:
    bounds = spec.range or (0, 255)
    pairs = " and ".join(f"{low:g} to {high:g}" for low, high in zip(bounds[::2], bounds[1::2], strict=True))
    return {
        "images": feed(spec),
        "intensities": f"{spec.values}, of which {pairs} become 0 to 1" + ", by channel" * (len(bounds) > 2),
        "resizing": f"{spec.interpolation}, of the largest centred square",
    }


def _quality(of: Published) -> Iterator[str]:
    """Verdict, table and protocols, or that there is none."""
    yield from ("## How good it is", "")
    evaluation = of.evaluation
    if evaluation is None:
        yield from ("It was not evaluated: nothing here says whether its features are good for anything.", "")
        return
    if of.weights == "online":
        yield from (minus(verdict(evaluation)), "")
    elif "averaged" in evaluation.arms:
        judged = replace(evaluation, arms=evaluation.arms | {"pretrained": evaluation.arms["averaged"]})
        yield from (f"Of these weights, `averaged` in the table: {minus(verdict(judged))}", "")
    else:
        yield from (
            "These weights, the moving average, were not evaluated. What follows is of the network beside it.",
            "",
        )
    yield from _scores(of, evaluation)


def _scores(of: Published, evaluation: Evaluation) -> Iterator[str]:
    arms = arms_of([("", evaluation)])
    tables = [replace(evaluation_table(arms), title=f"On {evaluation.held_out:,} held-out images of {_data(of)}")]
    for table in (*tables, *augmentation_tables(arms)):
        yield from markdown(table)[1:]
        yield ""
    about = [f"{arm}: {ARMS[arm]}" for arm in evaluation.arms if arm in ARMS]
    yield from (f"- {line}" for line in (*evaluation.protocols.values(), *about))
    yield from ("- ±: half of a 95 % interval", "")


def _training(of: Published, method: str) -> dict[str, str]:
    record, config = of.record, of.record.config
    about = record.about
    options = config["objective"]
    if config["method"] not in METHODS:  # whose texts may be names of files
        options = {name: value for name, value in options.items() if not isinstance(value, str | list | dict)}
    data = DATASETS[of.data] if of.data else None
    terms = f" ({data.class_count} classes; licence: {data.licence})" if data else ""
    facts = {
        "images": f"{about['images'][0]:,} of {_data(of)}{terms}",
        "start": of.started or "random weights",
        "objective": ", ".join([method, *(f"{name} {_said(value)}" for name, value in options.items())]),
        "views": " + ".join(f"{v['count']} of {v['size']}×{v['size']}" for v in about["views"]),
        "length": str(config["length"]),
    }
    if record.train or record.monitor:
        end = record.end
        facts["length"] = f"{end['epoch']:g} ep, {end['step']:,} steps of {about['batch']} images"
        facts["optimiser"] = f"{config['optimizer']}, learning rate {config['lr']:g} per 256 images"
    facts["seed"] = f"{config['seed']}"
    facts["versions"] = f"frossl {about['frossl']}, " + ", ".join(
        f"{name} {there[name]}"
        for name, there in (("torch", about.get("environment", {})), ("python", about.get("machine", {})))
        if name in there
    )
    return facts


def _said(value: Any) -> str:
    return "not given" if value is None else value if isinstance(value, str) else json.dumps(value)


def _licence(of: Published) -> dict[str, str]:
    weights = of.licence if of.licence != UNKNOWN else "unknown; ask who published them before you use them"
    start = {"weights it started from": of.started} if of.started else {}
    return {"these weights": weights, **start}
