"""The programs of the page on one's own code run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_train_loop import folder_of_images

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
PROGRAMS = dict(re.findall(r"^## (.+?)$.*?```python\n(.+?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.filterwarnings("ignore")  # of the other libraries
@pytest.mark.parametrize("heading", PROGRAMS)
def test_it_runs(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "photos" in PROGRAMS[heading]:
        folder_of_images(tmp_path / "photos")
    exec(compile(PROGRAMS[heading], heading, "exec"), {"__name__": "__main__"})
