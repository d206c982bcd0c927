"""The verdict in words, and intervals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from frossl.evals.suite import Evaluation
from frossl.evals.verdict import COLLAPSES
from frossl.report.arms import Arm, arms_of
from frossl.report.verdict import glossary, judge, train_on
from frossl.runs.record import Record


def finding(state: str, **more) -> dict:
    return {"kind": "health", "step": 5, "state": state, "message": f"{state} is seen.", "remedy": "Turn it."} | more


def record(health=(), held_out: int = 10_000, **arms: dict[str, float]) -> Record:
    named = {name.replace("_", " "): values for name, values in arms.items()}
    evaluations = {"data": Evaluation(named, {}, held_out)} if arms else {}
    about = {"config": {"data": "data"}, "encoder": {"features": 64}, "views": [], "images": [50_000, 10_000]}
    return Record("run", Path("runs/run"), about, [], [], evaluations, health=list(health))


def scored(knn: float, rank: float = 9.0) -> dict[str, float]:
    return {"knn": knn, "effective_rank": rank}


@pytest.mark.parametrize(
    ("pretrained", "mood", "headline"),
    [
        (scored(0.8), "good", "helped"),
        (scored(0.5), "unknown", "no clear difference"),
        (scored(0.2), "bad", "did harm"),
        (scored(0.5, rank=1.2), "bad", "Collapsed"),
        (scored(0.8, rank=1.2), "good", "helped"),  # two classes need one direction
    ],
)
def test_the_headline_is_what_the_numbers_say(pretrained, mood, headline):
    said = judge(record(pretrained=pretrained, untrained=scored(0.5), raw_pixels={"knn": 0.4}), None)
    assert said.mood == mood
    assert said.headline.endswith(headline)
    assert any("of 64 directions" in sentence and "untrained encoder: 9.0" in sentence for sentence in said.more)


def test_without_labels_only_collapse_can_be_told():
    whole = record(pretrained={"effective_rank": 20.0}, untrained={"effective_rank": 5.0})
    flat = record(pretrained={"effective_rank": 1.1}, untrained={"effective_rank": 5.0})
    assert judge(whole, None).headline == "Not collapsed"
    assert "no labels" in judge(whole, None).more[-1]
    assert judge(flat, None).headline == "Collapsed"
    close = judge(record(pretrained={"effective_rank": 2.9}, untrained={"effective_rank": 13.7}), None)
    assert (close.mood, close.headline) == ("bad", "Close to collapse")


@pytest.mark.parametrize("arms", [{}, {"raw_pixels": {"knn": 0.5}}])
def test_an_encoder_is_not_blamed_for_images_that_are_all_alike(arms):
    alike = record(pretrained=scored(0.5, rank=0.0), untrained=scored(0.5, rank=0.0), **arms)
    said = judge(alike, None)
    assert (said.mood, said.headline) == ("bad", "Features never varied")
    assert "all alike" in said.more[0]
    assert not any("ollapse" in sentence for sentence in said.more)


def test_few_held_out_images_which_span_few_directions_are_no_collapse():
    three = {"pretrained": {"effective_rank": 1.6}, "untrained": {"effective_rank": 1.7}}
    said = judge(record(held_out=3, **three), None)
    assert said.headline == "Not collapsed"
    assert re.search(r"1\.6 of the 2 .*\b3 images", said.more[0])
    assert judge(record(held_out=1000, **three), None).headline == "Collapsed"
    assert judge(record(held_out=3, pretrained={"effective_rank": 0.0}, untrained={}), None).headline == "Collapsed"
    one = judge(record(held_out=1, pretrained={}, untrained={}), 0.0, 0.0)
    assert one.headline.startswith("Nothing")
    assert not any("vary" in sentence for sentence in one.more)


def test_a_collapse_is_the_headline_among_other_findings():
    states = ("Loss scale is wrong", "Collapsed to the mean direction")  # names
    arms = {"pretrained": {"effective_rank": 2.9}, "untrained": {"effective_rank": 13.7}}
    said = judge(record([finding(state) for state in states], **arms), None)
    assert said.headline == states[1]
    assert any(sentence.startswith(states[0]) for sentence in said.more)
    assert not any("not collapsed" in sentence for sentence in said.more)


@pytest.mark.parametrize("state", sorted(COLLAPSES))
def test_whatever_a_collapse_is_called_it_comes_first(state):
    said = judge(record([finding("Loss scale is wrong"), finding(state)]), 12.0, 4.0)
    assert said.headline == state


def test_without_evaluation_the_rank_of_the_sample_counts():
    assert judge(record(), 1.0).headline == "Collapsed"
    said = judge(record(), 12.0, 4.0)
    assert (said.mood, said.headline) == ("unknown", "Not evaluated")
    assert said.more[-1].endswith("frossl evaluate runs/run")


def short(length: str, epoch: float, knn: float = 0.5, backbone: str = "resnet18", health=(), **arms) -> Record:
    """A run of that length on 256 images."""
    made = record(health, pretrained=scored(knn), untrained=scored(0.5), raw_pixels={"knn": 0.4}, **arms)
    made.about["config"]["length"], made.about["encoder"]["backbone"] = length, backbone
    made.train.append({"kind": "train", "step": 4, "epoch": epoch, "seconds": 60.0})
    return made


@pytest.mark.parametrize(
    ("length", "epoch", "command"),
    [
        ("5ep", 5.0, "frossl pretrain --resume runs/run --length 100ep"),
        ("10min", 2.5, "--length 400min"),
        ("40it", 20.0, "--length 200it"),
        ("512img", 2.0, "--length 25600img"),
    ],
)
def test_after_few_epochs_without_a_difference_the_run_says_how_to_train_on(length, epoch, command):
    one = short(length, epoch)
    said = judge(one, None)
    assert said.headline == "Pretraining made no clear difference"
    assert said.more[-1:] == train_on(one, one.evaluation)
    assert said.more[-1].endswith(command)
    assert f"saw {epoch:g} epochs" in said.more[-1]


@pytest.mark.parametrize(
    "one",
    [
        short("60ep", 60.0),
        short("5ep", 5.0, knn=0.8),
        short("5ep", 5.0, health=[finding("Plateau")]),
        short("5ep", 5.0, knn=0.2, start=scored(0.7)),
        record(pretrained=scored(0.5), untrained=scored(0.5)),
        record(),
    ],
    ids=["many epochs", "helped", "a finding", "a start got worse", "no log", "no evaluation"],
)
def test_training_on_is_not_advised_where_it_is_no_remedy(one):
    assert train_on(one, one.evaluation) == ()


def test_a_collapsed_encoder_is_not_to_be_trained_on():
    one = short("5ep", 5.0)
    one.evaluations["data"].arms["pretrained"]["effective_rank"] = 1.1
    assert judge(one, None).headline == "Collapsed"
    assert train_on(one, one.evaluation) == ()


def test_a_module_of_ones_own_is_trained_on_in_python():
    one = short("5ep", 5.0, backbone="own:Net")
    assert "frossl.pretrain(resume='runs/run', backbone=..., length='100ep')" in train_on(one, one.evaluation)[0]


def test_where_pixels_are_the_better_control_the_untrained_encoder_is_compared_too():
    said = judge(record(pretrained=scored(0.6), untrained=scored(0.5), raw_pixels={"knn": 0.7}), None)
    assert (said.mood, said.headline) == ("bad", said.headline)
    assert "fell short" in said.headline
    assert "kNN −10.0 points" in said.more[0]
    assert "kNN +10.0 points" in said.more[1]


def test_intervals_are_the_measured_ones_or_those_of_a_share():
    assert Arm("r", "a", {"knn": 0.5, "knn_low": 0.4, "knn_high": 0.6}, 100).margin("knn") == pytest.approx(0.1)
    assert Arm("r", "a", {"knn": 0.5}, 100).margin("knn") == pytest.approx(1.96 * 0.05)
    few = Arm("r", "a", {"linear_10": 0.5, "linear_10_std": 0.1}, 10**9).margin("linear_10")
    assert few == pytest.approx(1.96 * 0.1 / 5**0.5, rel=1e-3)


def test_a_control_that_runs_share_stands_once():
    one = record(pretrained=scored(0.8), untrained=scored(0.5), raw_pixels={"knn": 0.4}).evaluations["data"]
    two = record(pretrained=scored(0.9), untrained=scored(0.6), raw_pixels={"knn": 0.4}).evaluations["data"]
    arms = [(arm.run, arm.name) for arm in arms_of([("a", one), ("b", two)])]
    own = [(run, arm) for run in "ab" for arm in ("pretrained", "untrained")]
    assert arms == [*own, ("every run", "raw pixels")]


def test_what_the_health_monitor_found_stands_before_accuracy_unless_pretraining_helped():
    arms = {"untrained": scored(0.5), "raw_pixels": {"knn": 0.4}}
    found = [finding("One view says nothing")]
    said = judge(record(found, pretrained=scored(0.5), **arms), None)
    assert (said.mood, said.headline) == ("bad", found[0]["state"])
    assert said.more[0] == f"{found[0]['message']} {found[0]['remedy']}"
    assert any("kNN" in sentence for sentence in said.more)
    helped = judge(record(found, pretrained=scored(0.8), **arms), None)
    assert "helped" in helped.headline
    assert helped.more[-1].endswith(f": {found[0]['state']}: {found[0]['message']} {found[0]['remedy']}")


def test_a_collapse_is_explained_by_what_the_health_monitor_found():
    found = finding("Learning rate too high")
    said = judge(record([found]), 1.0)
    assert said.headline == "Collapsed"
    assert said.more[-1] == f"{found['state']}: {found['message']} {found['remedy']}"
    assert "lower learning rate" in judge(record(), 1.0).more[-1]


def test_only_what_was_still_so_at_the_end_stands():
    rows = [finding("A"), finding("B"), finding("A", over=True), finding("C"), finding("C", over=True), finding("C")]
    assert [row["state"] for row in record(rows).standing] == ["B", "C"]
    assert record([finding("A"), finding("A", over=True)]).standing == []


def test_the_glossary_has_what_was_measured():
    plain = Evaluation({"pretrained": {}, "untrained": {}}, {"knn": ""}, 10)
    more = Evaluation({"pretrained": {}, "supervised": {}}, {"finetune-1pct": ""}, 10)
    assert {"Untrained", "kNN"} <= glossary([plain]).keys()
    assert glossary([plain, more]).keys() - glossary([plain]).keys() == {"Supervised", "Fine-tuned"}
