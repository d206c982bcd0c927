"""Each rule on windows made for it, on both sides of its threshold, and on the rows of a healthy run."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from frossl.methods import METHODS
from frossl.train import health
from frossl.train.health import EARLY, Context, diagnose

CONTEXT = Context("frossl", 128)
FIRST = {
    "step": 1,
    "loss": 0.9,
    "entropy": -6.1,
    "invariance": 7.0,
    "grad_norm": 20.0,
    "backbone_variance": 90.0,
    "backbone_effective_rank": 24.0,
    "backbone_mean_to_spread": 0.6,
    "backbone_view_noise": 0.88,
    "backbone_least_view": 0.9,
    "backbone_least_agreement": 0.12,
    "projector_variance": 30.0,
    "projector_effective_rank": 26.0,
    "projector_mean_to_spread": 0.7,
    "projector_view_noise": 0.88,
    "projector_least_view": 0.9,
    "projector_least_agreement": 0.12,
}
LATER = FIRST | {"step": 200, "loss": -0.6, "entropy": -6.0, "invariance": 5.4, "backbone_effective_rank": 13.0}


def window(count: int = health.PLATEAU_ROWS + 1, **last) -> list[dict[str, float]]:
    """A healthy run but for ``last``, which all rows but the first have."""
    return [FIRST] + [LATER | {"step": 20 * i} | last for i in range(1, count)]


def states(rows, context=CONTEXT) -> list[str]:
    """The first three words of each."""
    return [" ".join(finding.state.split()[:3]) for finding in diagnose(rows, context)]


def test_a_healthy_run_has_nothing():
    assert states(window()) == []
    assert states([FIRST]) == []
    assert states([]) == []


CLUSTERS = 512
LEVEL = math.log(CLUSTERS)

RULES = [
    ("Collapsed to a", {"projector_mean_to_spread": 5.2}, {"projector_mean_to_spread": 4.8}),
    ("Collapsed to a", {"backbone_variance": 0.0}, {"backbone_variance": 1e-9}),
    ("Collapsed to the", {"entropy": -0.1, "invariance": 0.1}, {"entropy": -0.1, "invariance": 0.2}),
    ("Collapsed to the", {"entropy": -0.1, "invariance": 0.1}, {"entropy": -0.2, "invariance": 0.1}),
    ("Dimensional collapse", {"backbone_effective_rank": 3.5}, {"backbone_effective_rank": 3.7}),
    ("Dimensional collapse", {"projector_effective_rank": 1.4}, {"projector_effective_rank": 1.6}),
    (
        "Invariance is solved",
        {"projector_view_noise": 0.09, "projector_effective_rank": 12.0},
        {"projector_view_noise": 0.11, "projector_effective_rank": 12.0},
    ),
    (
        "Invariance is solved",
        {"projector_view_noise": 0.09, "projector_effective_rank": 12.0},
        {"projector_view_noise": 0.09, "projector_effective_rank": 14.0},
    ),
    ("Plateau at ln", {"loss": 0.981 * LEVEL}, {"loss": 0.979 * LEVEL}),
    ("One view says", {"backbone_least_view": 0.24}, {"backbone_least_view": 0.26}),
    ("One view says", {"projector_least_view": 0.24}, {"projector_least_view": 0.26}),
    ("Learning rate too", {"projector_variance": 15100.0}, {"projector_variance": 14900.0}),
    ("Loss scale is", {"grad_norm": 9e-7}, {"grad_norm": 2e-6}),
    ("Loss scale is", {"invariance": 640.0}, {"invariance": 560.0}),
]


@pytest.mark.parametrize(("state", "beyond", "within"), RULES)
def test_a_state_is_found_beyond_its_threshold_only(state, beyond, within):
    context = dataclasses.replace(CONTEXT, clusters=CLUSTERS if "Plateau" in state else 0)
    assert states(window(**beyond), context) == [state]
    assert states(window(**within), context) == []


def test_embeddings_of_prototypes_may_be_narrow():
    narrow = window(projector_effective_rank=1.2, loss=3.0)
    assert states(narrow, dataclasses.replace(CONTEXT, clusters=CLUSTERS)) == []
    assert states(narrow) == ["Dimensional collapse"]


def test_weak_augmentation_is_judged_by_the_untrained_encoder():
    for noise, found in ((0.19, ["Augmentation is too"]), (0.21, [])):
        assert states([FIRST | {"backbone_view_noise": noise}, *window()[1:]]) == found
    assert states(window(backbone_view_noise=0.01)) == []


def test_one_prototype_for_all_images_is_a_constant():
    context = dataclasses.replace(CONTEXT, clusters=CLUSTERS)
    assert states(window(loss=0.019 * LEVEL), context) == ["Collapsed to a"]
    assert states(window(loss=0.021 * LEVEL), context) == []
    assert states(window(loss=0.019 * LEVEL)) == []


def test_a_plateau_takes_time_and_prototypes():
    context = dataclasses.replace(CONTEXT, clusters=CLUSTERS)
    stays = window(health.PLATEAU_ROWS + 1, loss=LEVEL)
    assert states(stays, context) == ["Plateau at ln"]
    assert states(stays[: health.PLATEAU_ROWS - 1], context) == []
    assert states([*stays, LATER | {"loss": LEVEL - 1, "step": 300}], context) == []
    assert states(stays) == []


def test_an_encoder_whose_features_are_close_together_untrained_is_not_collapsed_for_that():
    first = FIRST | {"backbone_mean_to_spread": 8.0}
    assert states([first, LATER | {"backbone_mean_to_spread": 12.0}]) == []
    assert states([first, LATER | {"backbone_mean_to_spread": 17.0}]) == ["Collapsed to a"]


def test_of_a_step_that_was_not_finite_nothing_is_said():
    nan = {"entropy": float("nan"), "invariance": float("nan")}
    assert states([FIRST, LATER | nan]) == []
    assert states([FIRST | nan, LATER]) == []


def test_an_encoder_whose_features_never_varied_is_not_collapsed():
    still = {"backbone_variance": 0.0, "backbone_effective_rank": 0.0}
    assert states([FIRST | still, LATER | still]) == ["Features never varied"]
    assert states([FIRST, LATER | still]) == ["Collapsed to a"]


def test_embeddings_that_grow_over_a_whole_run_are_no_matter_of_the_learning_rate():
    grown = LATER | {"projector_variance": 20000.0}
    assert states([FIRST, LATER, grown | {"step": 5000}]) == []
    assert states([FIRST, grown, LATER | {"step": 5000}]) == ["Learning rate too"]


def test_of_several_collapses_the_most_complete_is_told():
    whole = {"entropy": -0.001, "invariance": 0.001, "projector_mean_to_spread": 40.0, "projector_effective_rank": 1.1}
    assert states(window(**whole)) == ["Collapsed to the"]
    assert states(window(**(whole | {"entropy": -1.0, "invariance": 1.0}))) == ["Collapsed to a"]
    assert states(window(projector_effective_rank=1.1, projector_view_noise=0.01)) == ["Dimensional collapse"]


def test_a_method_without_embeddings_and_constant_features_are_judged_too():
    bare = [{k: v for k, v in row.items() if not k.startswith("projector")} for row in window()]
    assert states(bare) == []
    assert states([*bare, bare[-1] | {"backbone_variance": 1e5, "step": 300}]) == ["Learning rate too"]
    assert states([*bare, bare[-1] | {"backbone_view_noise": 0.05, "backbone_effective_rank": 9.0}]) == [
        "Invariance is solved"
    ]
    gone = {"step": 300, "loss": 0.0, "grad_norm": 1.0, "backbone_variance": 0.0, "backbone_effective_rank": 0.0}
    assert states([*bare, gone]) == ["Collapsed to a"]
    assert states([{"step": 1, "loss": 1.0, "grad_norm": 1.0}]) == []


def test_findings_say_what_is_seen_and_name_flags_that_there_are():
    (found,) = diagnose(window(projector_effective_rank=1.1), Context("vicreg", 128))
    assert "13.0 directions" in found.message
    assert "24.0" in found.message
    assert "--variance-weight" in found.remedy


@pytest.mark.parametrize("method", [m for m in METHODS if Context(m, 128).hint != Context("", 128).hint])
def test_what_keeps_features_apart_is_an_option_of_the_method(method):
    options = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(METHODS[method].Config)}
    named = set(re.findall(r"--[a-z-]+[a-z]", Context(method, 128).hint))
    assert named
    assert named <= options


def test_rows_that_do_not_begin_with_the_untrained_encoder_say_nothing():
    """As on ranks that do not keep the log, or where telemetry was off until a run was resumed."""
    late = [row | {"step": row["step"] + EARLY + 1} for row in window(projector_mean_to_spread=1e9)]
    assert states(window(projector_mean_to_spread=1e9))
    assert states(late) == []


def test_rows_of_findings_have_the_keys_of_the_documentation():
    row = health.Finding("Bad", "It is bad.", "Mend it.").row()
    assert row == {"state": "Bad", "message": "It is bad.", "remedy": "Mend it."}
