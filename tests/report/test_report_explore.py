"""The page of explore: what is on it, how large it is, and, in a browser, that a lasso selects what is inside."""

from __future__ import annotations

import base64
import json
import re
import sys

import numpy as np
import pytest
import torch
from test_report_browser import BROWSER, browse

from frossl.curate.findings import AnalysisOptions, analyse
from frossl.curate.space import evenly_spaced
from frossl.report import explore
from frossl.report.explore import Collection, write_page

COUNT = 60
DRIVE = """<script>addEventListener("load", () => setTimeout(() => {
  const seen = document.body.dataset, canvas = document.getElementById("points"), box = canvas.getBoundingClientRect();
  const at = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {
    clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true }));
  const draw = (corners) => {
    at("pointerdown", ...corners[0]);
    for (const corner of corners) at("pointermove", ...corner);
    at("pointerup", ...corners.at(-1));
    return document.documentElement.dataset.selected;
  };
  const all = [[-1, -1], [2, -1], [2, 2], [-1, 2]];
  seen.all = draw(all);
  seen.left = draw([[-1, -1], [0.5, -1], [0.5, 2], [-1, 2]]);
  seen.right = draw([[0.5, -1], [2, -1], [2, 2], [0.5, 2]]);
  document.querySelector("input[name=tool][value=box]").click();
  seen.box = draw([[-1, -1], [0.5, 2]]);
  seen.chosen = document.querySelectorAll("#chosen .card").length;
  const pictured = (e) => /blob:/.test(e.style.backgroundImage);
  seen.pictured = [...document.querySelectorAll("#chosen .thumb")].filter(pictured).length;
  document.getElementById("clear").click();
  for (const key of ["ArrowRight", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "+", "Enter"])
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  seen.keyboard = document.documentElement.dataset.selected;
  document.querySelector("#legend button").click();
  seen.legend = document.documentElement.dataset.selected;
  document.querySelectorAll("input[name=encoder]")[1].click();
  seen.about = document.getElementById("about-map").textContent;
  seen.groups = document.querySelectorAll("#list-groups .strip").length;
  seen.wide = document.documentElement.scrollWidth;
  seen.window = innerWidth;
  seen.ground = getComputedStyle(document.body).backgroundColor;
  seen.fetched = performance.getEntriesByType("resource").filter((e) => !/^(data|blob):/.test(e.name)).length;
}, 3000));</script></body>"""


def collection(count: int = COUNT, **changes) -> Collection:
    """Noise of two classes, of which the last image is a copy of the first."""
    pictures = torch.randint(0, 255, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures[-1] = pictures[0]
    known = {
        "name": "some <b>images</b>",
        "paths": [f"a/{i:05}</script>.png" for i in range(count)],
        "splits": ["train", "held-out"] * (count // 2),
        "labels": [("light", "dark", None)[i % 3] for i in range(count)],
        "classes": ("light", "dark"),
        "classes_N": torch.tensor([(0, 1, -1)[i % 3] for i in range(count)]),
        "pictures": pictures,
        "notes": (),
    }
    return Collection(**{**known, **changes})


def findings(of: Collection, seed: int = 0, points: int = 10**6):
    x = np.random.default_rng(seed).normal(size=(len(of.paths), 8)).astype("float32")
    x[-1] = x[0]
    mapped = evenly_spaced(len(of.paths), points)
    asked = AnalysisOptions(alike=0.95, map="pca", label_first=5)
    return analyse(x, of.pictures, of.classes_N, of.classes, of.splits, asked, mapped=mapped)


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["frossl.evals.linear"], "PENALTIES", (1e-1,))
    of = collection()
    encoders = {"mine": findings(of), "untrained": findings(of, 1)}
    write_page(tmp_path / "explore.html", of, encoders, {"mine": "a net", "untrained": "the same"}, {"a.csv": "a list"})
    return tmp_path / "explore.html"


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])


def test_everything_is_in_the_one_file(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "plotly" not in text.lower()
    assert "<b>images</b>" not in text
    found = data_of(page)
    assert found["paths"][0].endswith("</script>.png")
    assert sorted(found["paths"]) == collection().paths
    (group,) = found["encoders"][0]["lists"]["groups"]
    assert [found["paths"][i][:7] for i in group["images"]] == ["a/00059", "a/00000"]  # the held-out one is kept
    x = np.frombuffer(base64.b64decode(found["encoders"][0]["x"]), "<u2")
    assert (len(x), x.min(), x.max()) == (COUNT, 0, 65534)


def test_what_does_not_fit_has_no_thumbnail_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(explore, "BUDGET", 30_000)
    of = collection(2200, labels=[None] * 2200, classes=(), classes_N=torch.full((2200,), -1), splits=[""] * 2200)
    about = write_page(tmp_path / "e.html", of, {"mine": findings(of, points=2000)}, {"mine": ""}, {})
    assert 0 < about["thumbnails"] < about["images"] < 2200
    assert about["bytes"] < 30_000 * 4 / 3 + 500_000
    text = (tmp_path / "e.html").read_text()
    assert "have thumbnails" in text
    assert "the map has 2,000 of 2,200 images" in text
    lists = data_of(tmp_path / "e.html")["encoders"][0]["lists"]
    assert max(one["i"] for one in lists["outliers"]) < about["thumbnails"]  # lists come first


def test_without_the_images_there_are_no_pictures(tmp_path):
    of = collection(pictures=None)
    about = write_page(tmp_path / "e.html", of, {"mine": findings(of)}, {"mine": ""}, {})
    assert (about["thumbnails"], about["images"]) == (0, COUNT)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
@pytest.mark.parametrize(
    ("width", "options"), [(1280, ()), (768, ("--blink-settings=preferredColorScheme=0",)), (360, ())]
)
def test_a_lasso_selects_what_is_inside_on_every_screen(page, width, options):
    page.write_text(page.read_text().replace("</body>", DRIVE))
    seen, said = browse(page, width, *options)
    value = dict(re.findall(r'data-([a-z]+)="([^"]*)"', seen))
    assert said == []
    assert value["all"] == str(COUNT)
    left, right = int(value["left"]), int(value["right"])
    assert 0 < left < COUNT
    assert left + right == COUNT
    assert int(value["box"]) == int(value["chosen"]) == int(value["pictured"]) == left
    assert int(value["keyboard"]) > 0
    assert 0 < int(value["legend"]) < COUNT
    assert "untrained" in value["about"]
    assert value["groups"] == "1"
    assert int(value["wide"]) <= int(value["window"]) == width
    assert value["fetched"] == "0"
    dark = sum(map(float, re.findall(r"\d+", value["ground"])[:3])) / 3 < 50
    assert dark == bool(options)
