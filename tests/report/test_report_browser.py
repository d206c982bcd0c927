"""The report in a browser: it draws everything, says nothing on the console, and fits a phone."""

import re
import shutil
import subprocess

import pytest
from comparison_runs import write_plan, write_run

from frossl.report.comparison import write_comparison
from frossl.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
MEASURE = """<script>addEventListener("load", () => setTimeout(() => {
  const told = document.body.dataset, all = [...document.querySelectorAll("main *")];
  told.wide = document.documentElement.scrollWidth;
  told.window = innerWidth;
  told.fetched = performance.getEntriesByType("resource").filter((e) => !/^(data|blob):/.test(e.name)).length;
  told.ground = getComputedStyle(document.body).backgroundColor;
  told.ink = [...document.querySelectorAll(".plot text")].map((e) => getComputedStyle(e).fill)[0];
  const scrolls = (e) => e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX);
  told.stuck = all.filter((e) => scrolls(e) && e.tabIndex < 0).map((e) => e.className).join(" ");
  document.querySelectorAll(".map").forEach((map) => {
    map.focus();
    map.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
    if (document.activeElement !== map || map.querySelector(".peek").hidden) told.stuck += " map";
  });
}, 3000));</script></body>"""

FRAME = """<body style="margin: 0"><iframe src="{page}" style="border: 0; width: {width}px; height: 800px"></iframe>
<script>addEventListener("load", () => setTimeout(() => {{
  const seen = document.querySelector("iframe").contentDocument.documentElement;
  document.replaceChild(document.adoptNode(seen), document.documentElement);
}}, 5000));</script></body>"""
"""No window of Chromium is less than 500 pixels wide, a frame may be."""


def browse(page, width: int, *options: str) -> tuple[str, list[str]]:
    """The page after its scripts, and what the console got."""
    frame = page.parent / "frame.html"
    frame.write_text(FRAME.format(page=page.name, width=width))
    ended = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
            "--allow-file-access-from-files",
            f"--window-size={max(width, 500)},800",
            f"--user-data-dir={page.parent / 'profile'}",
            *options,
            "--dump-dom",
            frame.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize(
    ("kind", "width"),
    [("labelled", 1280), ("unlabelled", 1280), ("collapsed", 1280), ("labelled", 360), ("hostile", 360)],
)
def test_every_chart_is_drawn_without_a_word_on_the_console(request, tmp_path, kind, width):
    all_is_drawn(write_report([request.getfixturevalue(kind)], tmp_path / "report.html"), width)


@pytest.mark.parametrize("width", [1280, 360])
def test_a_comparison_is_drawn_without_a_word_on_the_console(tmp_path, width):
    arms = {"frossl:4": 0.8, "vicreg:2 --lr 1": 0.7, "my_module:<b>Mine": 0.6}
    runs = [
        write_run(tmp_path, arm, seed, accuracy + seed / 100, budget)
        for arm, accuracy in arms.items()
        for seed in range(2)
        for budget in ("2ep", "1min")
    ]
    write_comparison(write_plan(tmp_path, runs))
    all_is_drawn(tmp_path / "comparison.html", width)


def test_in_the_dark_it_is_dark(labelled, tmp_path):
    light, dark = (
        all_is_drawn(write_report([labelled], tmp_path / f"{name}.html"), 1280, *options)
        for name, options in (("light", ()), ("dark", ("--blink-settings=preferredColorScheme=0",)))
    )
    assert brightness(light, "ground") > 200 > 100 > brightness(light, "ink")
    assert brightness(dark, "ground") < 50 < 120 < brightness(dark, "ink")


def brightness(seen: str, name: str) -> float:
    colour = re.search(rf'data-{name}="rgba?\(([^)]*)\)"', seen)[1]
    return sum(map(float, colour.split(",")[:3])) / 3


def all_is_drawn(page, width, *options):
    """What there is after the scripts: all charts, in the window, from one file, and within reach of the keyboard."""
    assert page.stat().st_size < 15e6
    page.write_text(page.read_text().replace("</body>", MEASURE))
    seen, said = browse(page, width, *options)
    places = len(re.findall(r'<div class="plot[^>]* id="figure-', seen))
    assert said == []
    assert places
    assert len(re.findall(r'<div class="[^"]*js-plotly-plot', seen)) == places
    assert re.search(r'data-drawn="(\d+)"', seen)[1] == str(places)
    wide, window, fetched = (int(re.search(rf'data-{n}="(\d+)"', seen)[1]) for n in ("wide", "window", "fetched"))
    assert wide <= window == width
    assert fetched == 0
    assert re.search(r'data-stuck="([^"]*)"', seen)[1] == ""
    return seen
