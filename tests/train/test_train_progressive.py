"""Views that are small at first and grow during the run."""

import os
import signal

import pytest
from test_train_loop import before_step, config, folder_of_images, losses, same_weights
from test_train_sizes import VIT, planned

import frossl.train.loop as loop
from frossl.core.length import Length
from frossl.core.progress import Extension, Progress
from frossl.core.types import UserError
from frossl.runs.directory import read_run
from frossl.train.pretrain import pretrain
from frossl.train.schedule import recipe_at
from rank_programs import ended, forked

pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("progressive")
    folder_of_images(root, count=40)
    return root


def seen_sizes(monkeypatch) -> list[int]:
    """Fills up with the side of the views of every step of the next runs."""
    seen: list[int] = []
    monkeypatch.setattr(loop._Loop, "log_step", lambda self, output, monitored: seen.append(self.learner.seen))
    encode = loop.Learner.encode

    def watched(self, network, x):
        self.seen = x.shape[-1]
        return encode(self, network, x)

    monkeypatch.setattr(loop.Learner, "encode", watched)
    return seen


def test_views_grow_in_equal_parts_of_the_run(images, tmp_path, monkeypatch):
    seen = seen_sizes(monkeypatch)
    run = pretrain(config(images, tmp_path, progressive=(8, 12), length="9it")).run
    assert seen == [8, 8, 8, 12, 12, 12, 16, 16, 16]
    assert read_run(run)[1][0].size == 16


def test_a_run_killed_while_its_views_grow_goes_on_as_if_it_never_was(images, tmp_path):
    changes = {"progressive": (8,), "length": "12it"}
    whole = pretrain(config(images, tmp_path, name="whole", **changes)).run

    def killed_in_the_eighth() -> None:
        before_step(pytest.MonkeyPatch(), 8, lambda: os.kill(os.getpid(), signal.SIGKILL))
        pretrain(config(images, tmp_path, name="killed", checkpoint_every="5it", **changes))

    assert ended([forked(killed_in_the_eighth, tmp_path / "said")]) == [-signal.SIGKILL]
    saved, _ = read_run(tmp_path / "killed")
    pretrain(saved, resume=tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(whole)
    assert same_weights(tmp_path / "killed", whole)


def test_small_views_keep_their_proportion_to_the_large_ones():
    plan = planned(32, view_recipe="multicrop", size=32, progressive=(16,))
    halves = [recipe_at(plan, Progress(Length.parse("10it"), 10, step)) for step in (4, 5)]
    assert [[group.size for group in recipe] for recipe in halves] == [[16, 7], [32, 14]]


def test_views_stay_large_where_a_finished_run_goes_on():
    plan = planned(32, progressive=(16,))
    added = Extension(10, 1.0, "10it", "100it", 0.0, again=True)
    assert recipe_at(plan, Progress(Length.parse("100it"), 100, 10, 1.0, (added,))) == plan.recipe


@pytest.mark.parametrize("sizes", [(24, 16), (40,), (0, 16)])
def test_sizes_that_do_not_rise_to_that_of_the_views_are_refused(sizes):
    with pytest.raises(UserError, match=rf"--progressive {' '.join(map(str, sizes))}: give sizes in rising order.*32"):
        planned(32, progressive=sizes)


def test_sizes_that_the_encoder_does_not_take_are_refused():
    with pytest.raises(UserError, match=r"--progressive 32: vit_tiny_patch16_224, built for 64 pixels.*views of 32"):
        planned(64, progressive=(32,), **VIT)
