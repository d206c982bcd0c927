"""The model card of a published encoder, as Markdown with the front matter of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from frossl.data import DATASETS
from frossl.evals.suite import ARMS
from frossl.evals.verdict import verdict
from frossl.methods import METHODS, Method
from frossl.report.arms import arms_of, augmentation_tables, evaluation_table
from frossl.report.page import render_template
from frossl.report.table import markdown, minus
from frossl.runs.export import feed
from frossl.runs.publish import WEIGHTS, Published

TASK = "image-feature-extraction"


def model_card(of: Published) -> str:
    """What was published, how it is loaded and fed, how good it is beside its controls, and how it was trained.

    It does not contain paths, or names of files, runs, classes or the user's own methods.
    """
    spec, name = of.spec, of.record.config["method"]
    objective, method = (name, METHODS[name]) if name in METHODS else ("an objective of its own", Method)
    bounds, data = spec.range or (0, 255), of.data or "own images"
    trained = f"pretrained with {objective}" if method.trains else "not trained, but for statistics of batch norms,"
    mean, std = (json.dumps([round(value, 6) for value in values]) for values in (spec.mean, spec.std))
    return render_template(
        "card.md.j2",
        of=of,
        spec=spec,
        data=data,
        origin=trained,
        mean=mean,
        std=std,
        file=WEIGHTS,
        fed=feed(spec),
        intensities=" and ".join(f"{a:g} to {b:g}" for a, b in zip(bounds[::2], bounds[1::2], strict=True)),
        front_matter=_front_matter(of, method),
        training=_training(of, objective, data),
        **_quality(of, data),
    )


def _front_matter(of: Published, method: type[Method]) -> dict[str, str]:
    """Values as JSON, which YAML includes. The Hub knows identifiers of licences, and ``other`` with a name."""
    identified = re.fullmatch(r"[\w.+-]+", of.licence)
    about: dict[str, Any] = {"license": of.licence.lower() if identified else "other"}
    about |= {} if identified else {"license_name": of.licence}
    about["library_name"] = "timm" if of.in_timm else "frossl"
    about["pipeline_tag"] = TASK
    about["tags"] = [TASK, "frossl", *["self-supervised-learning"] * (method.trains and not method.uses_labels)]
    about |= {"base_model": of.base} if of.base else {}
    return {key: json.dumps(value) for key, value in about.items()}


def _quality(of: Published, data: str) -> dict[str, Any]:
    """Verdict, tables and protocols."""
    evaluation = of.evaluation
    if evaluation is None:
        return {"verdict": "It was not evaluated: nothing here says whether its features are good for anything."}
    if of.weights == "online":
        text = minus(verdict(evaluation))
    elif "averaged" in evaluation.arms:
        judged = replace(evaluation, arms=evaluation.arms | {"pretrained": evaluation.arms["averaged"]})
        text = f"Of these weights, `averaged` in the table: {minus(verdict(judged))}"
    else:
        text = "These weights, the moving average, were not evaluated. What follows is of the network beside it."
    arms = arms_of([("", evaluation)])
    scores = replace(evaluation_table(arms), title=f"On {evaluation.held_out:,} held-out images of {data}")
    protocols = [*evaluation.protocols.values(), *(f"{arm}: {ARMS[arm]}" for arm in evaluation.arms if arm in ARMS)]
    tables = ["\n".join(markdown(table)[1:]) for table in (scores, *augmentation_tables(arms))]
    return {"verdict": text, "tables": tables, "protocols": protocols}


def _training(of: Published, objective: str, data: str) -> dict[str, str]:
    config, about, options = of.record.config, of.record.about, of.record.config["objective"]
    if config["method"] not in METHODS:  # whose texts may be names of files
        options = {name: value for name, value in options.items() if not isinstance(value, str | list | dict)}
    named = DATASETS[of.data] if of.data else None
    terms = f" ({named.class_count} classes; licence: {named.licence})" if named else ""
    versions = {"frossl": about["frossl"]}
    versions |= {
        name: about.get(part, {}).get(name) for name, part in (("torch", "environment"), ("python", "machine"))
    }
    facts = {
        "images": f"{about['images'][0]:,} of {data}{terms}",
        "start": of.started or "random weights",
        "objective": ", ".join([objective, *(f"{name} {_text(value)}" for name, value in options.items())]),
        "views": " + ".join(f"{v['count']} of {v['size']}×{v['size']}" for v in about["views"]),
        "length": str(config["length"]),
    }
    if of.record.train or of.record.monitor:
        end = of.record.end
        facts["length"] = f"{end['epoch']:g} ep, {end['step']:,} steps of {about['batch']} images"
        facts["optimiser"] = f"{config['optimizer']}, learning rate {config['lr']:g} per 256 images"
    facts["seed"] = f"{config['seed']}"
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return facts


def _text(value: Any) -> str:
    return "not given" if value is None else value if isinstance(value, str) else json.dumps(value)
