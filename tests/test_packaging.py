"""The wheel holds all that the package needs, and its metadata agree with each other."""

from __future__ import annotations

import re
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import frossl

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    return message_from_bytes(wheel.read(next(name for name in wheel.namelist() if name.endswith("/METADATA"))))


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    files = {p.relative_to(SOURCE).as_posix() for p in (SOURCE / "frossl").rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert {Path(name).suffix for name in files} >= {".py", ".toml", ".j2", ".js", ".css", ".typed"}
    assert files <= set(wheel.namelist())


def test_classifiers_name_the_versions_of_python_that_are_required(metadata):
    assert (lowest := re.fullmatch(r">=3\.(\d+)", metadata["Requires-Python"]))
    named = [
        int(version[1])
        for line in metadata.get_all("Classifier", [])
        if (version := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    ]
    assert named == list(range(int(lowest[1]), int(lowest[1]) + len(named)))
    assert f'pythonVersion = "3.{lowest[1]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_version_is_the_same_everywhere(metadata):
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changed = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited is not None
    assert metadata["Version"] == frossl.__version__ == cited[1] == changed[0]
