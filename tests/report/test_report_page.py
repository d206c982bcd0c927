"""The report as a file: what it says of runs of every kind, and that it needs nothing else."""

import json
import re
import shutil

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image
from plotly.offline import get_plotlyjs
from tiny_runs import HOSTILE, config, folder

from frossl.core.types import UserError
from frossl.data import open_data
from frossl.report.gallery import show_views
from frossl.report.page import show, write_report
from frossl.report.run_summary import summarise_run
from frossl.runs.directory import read_run
from frossl.runs.record import read_record
from frossl.train.pretrain import pretrain

MEGABYTE = 2**20


def written(output, *runs) -> str:
    """The page without the library of charts."""
    return write_report(runs, output).read_text().replace(get_plotlyjs().replace("</script", "<\\/script"), "")


def charts(page: str) -> dict[str, dict]:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)[1])


def labels(page: str) -> list[str]:
    return [chart["label"] for chart in charts(page).values()]


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="([a-z-]+)"', page)


@pytest.fixture(scope="module")
def pages(tmp_path_factory, labelled, unlabelled, hostile, collapsed):
    place = tmp_path_factory.mktemp("pages")
    runs = {"labelled": [labelled], "unlabelled": [unlabelled], "hostile": [hostile], "collapsed": [collapsed]}
    runs["several"] = [labelled, unlabelled, collapsed]
    return {name: written(place / f"{name}.html", *which) for name, which in runs.items()}


KINDS = ("labelled", "unlabelled", "hostile", "collapsed", "several")


def test_a_run_ends_with_its_report(labelled, unlabelled):
    for run in (labelled, unlabelled):
        assert "<title>" in (run / "report.html").read_text()


def test_everything_is_there_in_the_order_in_which_it_is_read(pages):
    order = ["accuracy", "training", "spectrum", "rank", "views", "neighbours", "map", "confusion", "typical"]
    assert sections(pages["labelled"]) == [*order, "near-duplicates", "time", "settings", "glossary"]
    assert pages["labelled"].index('id="verdict"') < pages["labelled"].index('id="accuracy"')


def test_without_labels_there_are_only_the_parts_that_need_none(pages):
    assert sections(pages["labelled"] + pages["unlabelled"]).count("confusion") == 1
    assert {"training", "spectrum", "views", "neighbours", "map", "typical", "near-duplicates"} <= set(
        sections(pages["unlabelled"])
    )
    assert "Accuracy of every arm" not in labels(pages["unlabelled"])
    assert "no labels" in pages["unlabelled"]


def test_a_collapsed_encoder_is_the_first_thing_said(pages):
    page = pages["collapsed"]
    said = re.search(r'<h1 class="headline">(.*?)</h1>', page)
    assert said[1] == "Collapsed"
    assert 'class="verdict bad"' in page
    assert page.index("not use this") < page.index("<section")


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_is_valid_for_plotly_and_finite(pages, kind):
    for chart in charts(pages[kind]).values():
        text = re.sub(r'"\$[a-z]+[0-9]?"', '"#123456"', json.dumps(chart))
        figure = json.loads(text)
        go.Figure(data=figure["data"], layout=figure["layout"])
        assert "NaN" not in text
        assert "Infinity" not in text


def test_curves_know_images_epochs_and_seconds(pages):
    loss = next(c for c in charts(pages["labelled"]).values() if c["label"] == "Loss and its terms")
    assert [t["name"] for t in loss["data"]] == ["loss", "entropy", "invariance"]
    for trace in loss["data"]:
        assert trace["x"] == trace["meta"]["images"]
        assert trace["meta"].keys() == {"images", "epoch", "seconds"}
    total, *terms = [t["y"] for t in loss["data"]]
    assert total == pytest.approx([sum(values) for values in zip(*terms, strict=True)], rel=1e-4)


def test_several_runs_stand_side_by_side(pages):
    page = pages["several"]
    assert page.count('class="verdict ') == 3
    assert "runs differ" in page
    loss = next(c for c in charts(page).values() if c["label"] == "Loss")
    assert [t["name"] for t in loss["data"]] == ["labelled", "unlabelled", "collapsed"]
    spectra = next(c for c in charts(page).values() if c["label"] == "Eigenvalue spectrum")
    assert [t["name"] for t in spectra["data"]].count("labelled · pretrained") == 1
    over_time = [c["layout"]["title"]["text"] for c in charts(page).values() if "Spectrum while" in c["label"]]
    assert over_time == [
        f"{run}: Spectrum while training, faint to full" for run in ("labelled", "unlabelled", "collapsed")
    ]
    assert page.count("<h3>labelled, collapsed</h3>") == 2  # their views and their near-duplicates are the same


def test_what_only_one_of_several_methods_has_names_its_run_and_losses_are_not_compared(tmp_path, pages, labelled):
    other = tmp_path / "other"
    shutil.copytree(labelled, other)
    about = json.loads((other / "config.json").read_text())
    about["config"]["method"] = "vicreg"
    (other / "config.json").write_text(json.dumps(about))
    rows = (other / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(rows.replace('"entropy"', '"covariance"'))
    page = written(tmp_path / "r.html", labelled, other)
    covariance = next(c for c in charts(page).values() if c["label"] == "Covariance")
    assert [t["name"] for t in covariance["data"]] == ["other"]
    assert covariance["layout"]["showlegend"]
    assert "of their own" in page
    assert "of their own" not in pages["several"]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path, labelled):
    shutil.copytree(labelled, tmp_path / "labelled")
    page = written(tmp_path / "two.html", labelled, tmp_path / "labelled")
    assert str(tmp_path / "labelled") in page


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_asks_for_nothing_from_anywhere(pages, kind):
    page = pages[kind]
    assert not re.search(r"""(?:src|href|action|data|poster)\s*=\s*["']?\s*(?:https?:)?//""", page, re.I)
    assert not re.search(r"""url\(\s*["']?(?!data:)""", page)
    assert not re.search(r"@import|<link(?! rel=\"icon\" href=\"data:,\")|<iframe|<base", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_small(pages, kind):
    assert len(pages[kind].encode()) < MEGABYTE
    assert len(get_plotlyjs()) < 6 * MEGABYTE


def test_names_from_the_user_are_text(pages):
    page = pages["hostile"]
    for raw in (*HOSTILE[:2], "<b>images", "<i>hostile"):
        assert raw not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "{{ 7 * 7 }}" in page
    names = [t["name"] for c in charts(page).values() for t in c["data"] if c["label"] == "Map of the embedding"]
    assert "&lt;img src=x onerror=aler…" in names  # in its texts plotly reads some tags and entities


def test_transfer_and_further_arms_have_their_tables(tmp_path, labelled):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    path = run / "evaluation.json"
    saved = json.loads(path.read_text())
    own = saved["labelled-images"]
    low_high = {"knn_under_flip_low": 0.4, "knn_under_flip_high": 0.6, "cosine_under_flip": 0.9}
    low_high |= {"cosine_under_flip_low": 0.88, "cosine_under_flip_high": 0.92}
    own["arms"]["pretrained"] |= {"knn": 0.5, "finetune": 0.75, "knn_under_flip": 0.512} | low_high
    own["arms"]["supervised"] = {"knn": 1.0}
    saved["far/images"] = {"arms": {"pretrained": {"knn": 0.3}, "untrained": {"knn": 0.2}}, "protocols": {}}
    saved["far/images"] |= {"held_out": 77, "source": "/far/images"}
    path.write_text(json.dumps(saved))
    page = written(tmp_path / "r.html", run)
    assert "<h3>Transfer to far/images</h3>" in page
    assert "77 held-out images" in page
    assert "Transfer to labelled-images" not in page
    for cell in ("0.512<small>±0.100</small>", "0.900<small>±0.020</small>"):
        assert f'<th scope="row">flip left to right</th><td>{cell}</td>' in page
    assert "supervised: same architecture" in page
    controls = (own["arms"][arm]["knn"] for arm in ("untrained", "raw pixels"))
    assert f"best control {max(controls):.3f}" in page  # not the supervised arm
    accuracy = next(c for c in charts(page).values() if c["label"] == "Accuracy of every arm")
    assert [t["name"] for t in accuracy["data"]] == [
        "pretrained",
        "untrained",
        "raw pixels",
        "largest class",
        "supervised",
    ]
    assert "fine-tuned" in accuracy["layout"]["yaxis"]["ticktext"]


def test_images_of_one_name_from_two_places_have_tables_of_their_own(tmp_path, labelled):
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        shutil.copytree(labelled, run)
    same = written(tmp_path / "same.html", *runs)
    path = runs[1] / "evaluation.json"
    saved = json.loads(path.read_text())
    saved["labelled-images"]["source"] = "/elsewhere/labelled-images"
    path.write_text(json.dumps(saved))
    apart = written(tmp_path / "apart.html", *runs)
    assert [page.count('aria-label="Table of acc') for page in (same, apart)] == [1, 2]
    assert "<h3>/elsewhere/labelled-images</h3>" in apart


def test_a_run_without_evaluation_or_images_still_has_a_report_that_says_so(tmp_path, labelled):
    run = tmp_path / "moved"
    shutil.copytree(labelled, run)
    (run / "evaluation.json").unlink()
    about = json.loads((run / "config.json").read_text())
    about["config"]["data"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(about))
    (run / "data.json").unlink()
    page = written(tmp_path / "report.html", run)
    assert "Not evaluated" in page
    assert "No pictures" in page
    assert "gone" in page
    assert sections(page) == ["training", "spectrum", "rank", "time", "settings", "glossary"]


def test_data_that_changed_are_not_taken_for_those_of_the_run(tmp_path, labelled):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    about = json.loads((run / "config.json").read_text())
    about["images"][0] += 1
    (run / "config.json").write_text(json.dumps(about))
    assert "changed since" in written(tmp_path / "report.html", run)


def test_a_run_from_the_cache_shows_the_views_that_training_saw(tmp_path):
    """Of smaller images other crops are cut, at the same place and share."""
    images = tmp_path / "images"
    folder(images, count=24)
    for path in images.rglob("*.png"):
        Image.open(path).resize((40, 56)).save(path)
    c = config(images, tmp_path, name="r", cache=20, size=16, length="1it", evaluate=False)
    record = read_record(pretrain(c).run)
    shown = summarise_run(record, None, None, {}).pictures["views"]
    stored, decoded = (open_data(c.data, data_dir=c.data_dir, held_out=c.held_out, cache=x) for x in (20, None))
    recipe = read_run(record.path)[1]
    assert shown == show_views(stored, recipe, c.seed)
    assert shown != show_views(decoded, recipe, c.seed)


def test_a_supervised_run_with_images_without_a_label_has_its_pictures(tmp_path):
    x = torch.randint(0, 256, (40, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    y = np.arange(40) % 3 - 1
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "some.npz", **dict(zip(names, (x[:30], y[:30], x[30:], y[30:]), strict=True)))
    c = config(tmp_path / "some.npz", tmp_path, name="r", method="supervised", objective=None, length="1it")
    record = read_record(pretrain(c).run)
    assert summarise_run(record, None, None, {}).missing is None


def test_spectra_in_the_log_are_shown_over_time_and_state_by_place(tmp_path, labelled):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    kept = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"spectrum"' not in line]
    at = {"kind": "spectrum", "step": 12, "epoch": 3.0, "images": 96, "seconds": 9.0, "where": "backbone"}
    said = {"variance": 8.0, "eigenvalues": [6.0, 0.5], "places": [1, 4], "effective_rank": 2.5}
    rows = [at | said | {"on": "views"}, at | said | {"on": "held_out", "variance": 10.0}]
    lines = [*kept, *map(json.dumps, rows), '{"kind": "tra']  # and a line that a crash cut off
    (run / "metrics.jsonl").write_text("\n".join(lines))
    found = charts(written(tmp_path / "r.html", run)).values()
    (over_time,) = (c for c in found if "faint to full" in c["label"])
    assert [(trace["x"], trace["y"]) for trace in over_time["data"]] == [([1, 4], [0.6, 0.05])]
    (state,) = (c for c in found if c["label"] == "Effective rank by place")
    assert [(t["name"], t["y"]) for t in state["data"]] == [("backbone, held-out", [2.5]), ("backbone, views", [2.5])]


def test_what_the_health_monitor_still_says_at_the_end_comes_first(tmp_path, labelled):
    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    (run / "evaluation.json").unlink()
    at = {"kind": "health", "epoch": 3.0, "images": 96, "seconds": 9.0}
    bad, worse = ({"state": s, "message": f"{s} words.", "remedy": f"Turn <{s}>."} for s in ("Bad", "Worse"))
    rows = [at | bad | {"step": 2}, at | worse | {"step": 4}, at | {"step": 6, "state": "Bad", "over": True}]
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    page = written(tmp_path / "r.html", run)
    assert '<h1 class="headline">Worse</h1>' in page
    assert page.index("Turn &lt;Worse&gt;.") < page.index("<section")
    assert "Bad words" not in page


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        write_report([tmp_path], tmp_path / "report.html")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="not the configuration of a run"):
        write_report([tmp_path], tmp_path / "report.html")


def test_no_browser_is_opened_without_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", lambda url: pytest.fail("opened"))
    assert not show(tmp_path / "report.html")


def test_a_report_leaves_the_global_generator_alone(tmp_path, labelled):
    state = torch.get_rng_state()
    write_report([labelled], tmp_path / "report.html")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_report_names_options_and_stem_of_the_encoder(labelled, tmp_path):
    page = write_report([labelled], tmp_path / "report.html").read_text()
    assert "<span>resnet18 (channels 16, 16, 16, 16; layers 1, 1, 1, 1), small stem, 16 features</span>" in page
