"""Tables, lists, shards, saved data sets, the Hub, and several sources at once."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pictures import encoded, picture

from frossl.commands.pretrain import parse
from frossl.core.types import UserError
from frossl.data import open_data
from frossl.data.open import is_there, join_sources, resolve_source, source_name


@pytest.fixture
def opened(tmp_path):
    return lambda source=tmp_path / "set", **options: open_data(
        str(source), **{"data_dir": tmp_path / "data"} | options
    )


def all_labels(data) -> list[int]:
    return sorted(torch.cat([data.train.labels, data.test.labels]).tolist())


def noted(data, *words: str) -> bool:
    return any(all(word in note for word in words) for note in data.notes)


def flat(write, count: int = 9, prefix: str = "") -> None:
    for i in range(count):
        write(f"{prefix}{i:03}.png", i)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_come_from_metadata_beside_images(write, opened, kind):
    flat(write)
    rows = [{"file_name": f"{i:03}.png", "label": "abc"[i % 3]} for i in range(9)]
    if kind == "parquet":
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        content = buffer.getvalue()
    elif kind == "csv":
        content = ("file_name,label\n" + "".join(f"{r['file_name']},{r['label']}\n" for r in rows)).encode()
    else:
        content = "\n".join(map(json.dumps, rows)).encode()
    write(f"metadata.{kind}", content=content)
    data = opened()
    assert (data.classes, all_labels(data)) == (("a", "b", "c"), [0] * 3 + [1] * 3 + [2] * 3)
    assert noted(data, "'label'", f"metadata.{kind}")
    assert opened(labels=False).train.labels is None


def test_rows_and_images_that_do_not_meet_are_counted(write, opened):
    flat(write, 6)
    rows = "".join(f"{i:03},{'xy'[i % 2]}\n" for i in range(2, 9))
    write("labels.csv", content=f"id,breed\n{rows}".encode())
    data = opened()
    assert (data.classes, all_labels(data)) == (("x", "y"), [-1, -1, 0, 0, 1, 1])
    assert noted(data, "3 rows", "006")
    assert noted(data, "2 images have no row")


def test_which_column_holds_labels_must_be_said_where_several_may(write, opened):
    flat(write, 8)
    rows = "".join(f"{i:03}.png,{'mf'[i % 2]},{'ab'[i // 4]},{i}.5\n" for i in range(8))
    write("metadata.csv", content=f"file_name,sex,site,age\n{rows}".encode())
    data = opened()
    assert data.classes == ()
    assert noted(data, "--label-column", "sex, site, age")
    assert opened(label_column="site").classes == ("a", "b")
    assert opened(label_column="age").targets == "values"
    for flag in ("label", "image"):
        with pytest.raises(UserError, match=f"--{flag}-column weight"):
            opened(**{f"{flag}_column": "weight"})


@pytest.mark.parametrize(("name", "content"), [("labels.jsonl", b"[1]\n"), ("metadata.parquet", b"PAR1")])
def test_a_damaged_table_is_named_and_may_be_done_without(write, opened, name, content):
    pytest.importorskip("pyarrow")
    flat(write, 3)
    write(name, content=content)
    with pytest.raises(UserError, match=rf"{name}.*--no-labels"):
        opened()
    assert len(opened(labels=False).train) == 2


def test_tables_of_splits_lie_in_their_folders_or_beside_them(write, opened):
    flat(write, 4, "train/")
    flat(write, 4, "test/")
    write(
        "train.csv", content=b"image,label\n" + b"".join(b"%03d.png,%s\n" % (i, b"ab"[i % 2 :][:1]) for i in range(4))
    )
    write("test/metadata.csv", content=b"file_name,label\n000.png,b\n001.png,b\n002.png,a\n003.png,b\n")
    data = opened()
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1, 0, 1], [1, 1, 0, 1])


@pytest.mark.parametrize("separator", [None, "\t", ",", " "])
def test_list_of_paths_with_or_without_labels(write, opened, tmp_path, separator):
    for i in range(4):
        write(f"in {i % 2}/{i}.png", i)
    lines = [f"in {i % 2}/{i}.png" + (f"{separator}{'pq'[i // 2]}" if separator else "") for i in range(4)]
    data = opened(write("list.txt", content="\n".join(lines).encode()))
    assert (len(data.train) + len(data.test), data.classes) == (4, ("p", "q") if separator else ())


def test_list_as_a_table_with_header_without_or_of_names_alone(write, opened):
    flat(write, 4, "deep/")
    header = write("a.csv", content=b"age,path\n" + b"".join(b"%d,deep/%03d.png\n" % (i // 2, i) for i in range(3)))
    assert all_labels(opened(header, label_column="age")) == [0, 0, 1]
    bare = write("b.csv", content=b"".join(b"deep/%03d.png,%d\n" % (i, i % 2) for i in range(4)))
    assert all_labels(opened(bare)) == [0, 0, 1, 1]
    names = write("c.csv", content=b"id,label\n000,u\n001,v\n002,v\n009,u\n")
    data = opened(names)
    assert (all_labels(data), len(data.train) + len(data.test)) == ([0, 1, 1], 3)
    with pytest.raises(UserError, match=r"d.txt lists no image"):
        opened(write("d.txt", content=b"nowhere.png\n"))


def test_list_may_name_folders_and_other_places(write, opened, tmp_path):
    flat(write, 3, "one/")
    flat(write, 2, "../other/")
    data = opened(write("list.txt", content=f"one\n{tmp_path}/other/000.png\n".encode()))
    assert len(data.train) + len(data.test) == 4


def shard(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for stem, files in samples.items():
            for extension, content in files.items():
                about = tarfile.TarInfo(f"{stem}.{extension}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return path


def samples(count: int, start: int = 0, kind: str = "cls") -> dict[str, dict[str, bytes]]:
    labels = {"cls": str, "txt": "ab".__getitem__, "json": lambda k: json.dumps({"class": "ab"[k], "id": 1})}
    return {
        f"{i:05}": {"png": encoded(picture(i)), kind: labels[kind](i % 2).encode()} for i in range(start, start + count)
    }


@pytest.mark.parametrize("kind", ["cls", "txt", "json"])
def test_shards_with_labels_are_read_by_offset(opened, tmp_path, kind):
    for number in range(2):
        shard(tmp_path / "set" / f"train-{number:06}.tar", samples(4, 4 * number, kind))
    shard(tmp_path / "set" / "val-000000.tar", samples(2, 8, kind))
    data = opened(memory_limit=0)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1] * 4, [0, 1])
    assert data.classes == (("0", "1") if kind == "cls" else ("a", "b"))
    copy = pickle.loads(pickle.dumps(data.train.images))
    batches = torch.utils.data.DataLoader(copy, batch_size=8, num_workers=1)
    assert torch.equal(next(iter(batches)), opened().train.images)
    assert data.train.images.sources.name(5) == "train-000001.tar/00005.png"
    pattern = opened(tmp_path / "set" / "train-{000000..000001}.tar", held_out=0.25)
    assert (len(pattern.train), len(pattern.test)) == (6, 2)


def test_shards_are_listed_once_until_they_change(opened, tmp_path, monkeypatch):
    first = shard(tmp_path / "set" / "a.tar", samples(4))
    opened()
    with monkeypatch.context() as patched:
        patched.setattr(tarfile, "open", lambda *a: pytest.fail("listed twice"))
        assert len(opened().train) == 3
    shard(first, samples(6))
    assert len(opened().train) == 5
    (tmp_path / "file").write_text("")
    said = []
    assert len(opened(data_dir=tmp_path / "file", log=said.append).train) == 5
    assert any("not kept" in text for text in said)


def test_damaged_shards_are_named(opened, tmp_path):
    whole = shard(tmp_path / "set" / "b.tar", samples(4)).read_bytes()
    places = [i for i in range(0, len(whole), 512) if whole[i : i + 5] == b"00002"]
    broken = tmp_path / "set" / "a.tar"
    for content in (
        whole[: places[0] + 600],
        whole[: places[0]],
        whole[: places[0]] + b"x" * 512 + whole[places[0] + 512 :],
    ):
        broken.write_bytes(content)
        data = opened()
        assert len(data.train) + len(data.test) == 4 + 2
        assert noted(data, "a.tar", "damaged or cut short")
    broken.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"a\.tar is no tar archive"):
        opened()


def test_of_an_image_and_its_mask_in_a_shard_the_image_is_read(opened, tmp_path):
    pair = {f"{i}": {"seg.png": encoded(picture(0)), "jpg": encoded(picture(i), "JPEG")} for i in range(3)}
    shard(tmp_path / "set" / "x.tar", pair)
    data = opened(memory_limit=0)
    assert data.train.images.sources.names == ["0.jpg", "1.jpg", "2.jpg"]
    assert noted(data, "3 .seg.png")


def test_images_in_folders_win_over_an_archive_beside_them(write, opened, tmp_path):
    flat(write, 3, "a/")
    flat(write, 3, "b/")
    shard(tmp_path / "set" / "all.tar", samples(4))
    assert opened().classes == ("a", "b")


def test_a_mistyped_folder_is_answered_with_the_one_that_may_be_meant(write, opened, tmp_path, monkeypatch):
    write("photos/0.png")
    with pytest.raises(UserError, match=r"Did you mean '.*photos'\?$"):
        opened(tmp_path / "set" / "photo")
    with pytest.raises(UserError, match=r"no folder or file '.*holidays' exists\. Check the path"):
        opened(tmp_path / "set" / "holidays")
    monkeypatch.chdir(tmp_path / "set")
    with pytest.raises(UserError, match=r"Did you mean 'photos'\?$"):
        opened("./photo")
    with pytest.raises(
        UserError, match=r"no folder 'photo' exists, but 'photos' does, and no data set.*Known: .*cifar10"
    ):
        opened("photo")


def test_several_sources_are_one(write, opened, tmp_path, monkeypatch):
    for source in ("one", "two"):
        for i in range(4):
            write(f"{source}/{'ab'[i % 2]}/{i}.png", i)
    flat(write, 2, "three/")
    both = opened(f"{tmp_path}/set/one+{tmp_path}/set/two + {tmp_path}/set/three")
    assert (both.classes, all_labels(both)) == (("a", "b"), [-1] * 2 + [0] * 4 + [1] * 4)
    assert len(opened(tmp_path / "set" / "o*" / "a").train) == 1
    files = opened(tmp_path / "set" / "*" / "*.png")
    assert len(files.train) + len(files.test) == 2
    with pytest.raises(UserError, match=r"nothing matches.*none"):
        opened(tmp_path / "set" / "none*")
    with pytest.raises(UserError, match=r"no folder 'nowhere'"):
        opened(f"{tmp_path}/set/one+nowhere")
    (tmp_path / "a+b").mkdir()
    write("../a+b/0.png")
    write("../a+b/1.png")
    assert len(opened(tmp_path / "a+b").train) == 1
    monkeypatch.chdir(tmp_path)
    assert resolve_source("set/one + set/two") == f"{tmp_path.resolve()}/set/one+{tmp_path.resolve()}/set/two"
    assert [is_there(x) for x in ("set/one+set/*", "set/one+nowhere", "cifar10+set/{one,two}")] == [True, False, True]
    assert source_name("set/one+x/*.png") == "one+_.png"
    assert resolve_source("cifar10") == "cifar10"


def test_words_before_the_first_flag_are_data():
    assert parse(["one", "two", "--batch", "4"], "frossl pretrain").config.data == "one+two"
    assert join_sources(["a", "b c", "--batch", "4", "d"]) == ["a+b c", "--batch", "4", "d"]
    assert join_sources(["--resume", "run"]) == ["--resume", "run"]


def test_sources_with_and_without_a_split_of_their_own(write, opened, tmp_path):
    flat(write, 3, "one/train/")
    flat(write, 2, "one/val/")
    flat(write, 4, "two/")
    data = opened(f"{tmp_path}/set/one+{tmp_path}/set/two")
    assert (len(data.train), len(data.test)) == (7, 2)


def test_columns_have_no_meaning_for_arrays_and_names(opened):
    with pytest.raises(UserError, match="--label-column"):
        opened("cifar10", label_column="label")


def parquet(path: Path, count: int, image: str = "image", **columns) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [encoded(picture(i)) for i in range(count)]
    pq.write_table(pa.table({image: [{"bytes": x, "path": None} for x in cells]} | columns), path)
    return path


@pytest.mark.parametrize(
    ("image", "columns"),
    [
        ("img", {"label": [0, 1] * 3}),
        ("img", {"fine_label": [0, 1] * 3, "coarse_label": [0, 0, 0, 1, 1, 1]}),
        ("picture_of_leaf", {"labels": [0, 1] * 3}),
        ("image", {"id": list(range(6)), "disease": ["x", "y"] * 3}),
    ],
)
def test_columns_of_other_names_are_found(opened, tmp_path, image, columns):
    parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet", 6, image, **columns)
    assert all_labels(opened()) == [0] * 3 + [1] * 3


def test_columns_that_are_in_doubt_are_named(opened, tmp_path):
    cells = [{"bytes": encoded(picture(i)), "path": None} for i in range(4)]
    parquet(tmp_path / "set" / "a.parquet", 4, "left", right=cells, sex=["m", "f"] * 2, site=["x", "x", "y", "y"])
    with pytest.raises(UserError, match=r"left, right.*--image-column"):
        opened()
    data = opened(image_column="right")
    assert data.classes == ()
    assert noted(data, "--label-column", "sex, site")
    assert opened(image_column="right", label_column="site").classes == ("x", "y")


def test_layouts_of_the_hub(opened, tmp_path):
    root = tmp_path / "set"
    parquet(root / "default" / "train" / "0000.parquet", 4, label=[0, 1, 0, 1])
    parquet(root / "default" / "test" / "0000.parquet", 2, label=[0, 1])
    (root / "assets").mkdir()
    (root / "assets" / "logo.png").write_bytes(encoded(picture(0)))
    data = opened()
    assert (len(data.train), len(data.test)) == (4, 2)
    parquet(root / "raw" / "train-0.parquet", 3)
    assert len(opened().train) == 4
    (root / "default").rename(root / "clean")
    with pytest.raises(UserError, match=r"configurations: clean, raw"):
        opened()
    assert len(opened(root / "clean").train) == 4


def test_small_parquet_is_read_without_a_copy_and_a_copy_is_announced(opened, tmp_path):
    file, said = parquet(tmp_path / "set" / "a.parquet", 4), []
    opened(file, log=said.append)
    assert not (tmp_path / "data").exists()
    opened(file, log=said.append, memory_limit=10)
    assert any("GB" in text and "parquet-cache" in text for text in said)


@pytest.mark.parametrize("splits", [True, False])
def test_folder_of_save_to_disk(opened, tmp_path, splits):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"img": [{"bytes": encoded(picture(i)), "path": None} for i in range(4)], "label": [0, 1, 1, 0]}
    table = datasets.Dataset.from_dict(rows, features)
    (datasets.DatasetDict(train=table, test=table) if splits else table).save_to_disk(str(tmp_path / "set"))
    data = opened()
    assert (data.classes, len(data.test)) == (("no", "yes"), 4 if splits else 1)


def hub(monkeypatch, tmp_path, repository: Path) -> None:
    """The Hub as a folder: what is asked for is copied from there."""
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def info(self, name, *, revision, files_metadata):
        assert (name, files_metadata) == ("some/data", True)
        place = repository / (revision or "main")
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        siblings = [SimpleNamespace(rfilename=str(x.relative_to(place)), size=x.stat().st_size) for x in files]
        return SimpleNamespace(siblings=siblings)

    def snapshot(*, repo_id, repo_type, revision, allow_patterns):
        assert (repo_id, repo_type) == ("some/data", "dataset")
        for name in allow_patterns:
            target = tmp_path / "snapshot" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((repository / (revision or "main") / name).read_bytes())
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)


@pytest.mark.parametrize("branch", ["main", "refs/convert/parquet"])
def test_data_of_the_hub_are_fetched_as_parquet(opened, tmp_path, monkeypatch, branch):
    parquet(tmp_path / "hub" / branch / "default" / "train" / "0000.parquet", 4, label=[0, 1, 0, 1])
    (tmp_path / "hub" / "main").mkdir(exist_ok=True)
    (tmp_path / "hub" / "main" / "README.md").write_text("about")
    hub(monkeypatch, tmp_path, tmp_path / "hub")
    said = []
    data = opened("hf://datasets/some/data", log=said.append)
    assert (len(data.train), data.classes) == (3, ("0", "1"))
    assert any("1 files" in text for text in said)
    assert source_name("hf://datasets/some/data") == "data"
    assert resolve_source("hf://datasets/some/data") == "hf://datasets/some/data"


def test_without_the_hub_it_is_said_what_was_tried(opened, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def down(*args, **options):
        raise RuntimeError("no network")

    def nothing(*, local_files_only, **options):
        raise FileNotFoundError

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", down)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing)
    with pytest.raises(UserError, match=r"hf://datasets/some/data.*no network.*fetched before.*network"):
        opened("hf://datasets/some/data")
    with pytest.raises(UserError, match="ORG/NAME"):
        opened("hf://datasets/some")


def test_several_rows_for_an_image_are_said_and_make_one_image(write, opened, tmp_path):
    flat(write)
    rows = "".join(f"{i % 9:03}.png,{'abc'[i % 3]}\n" for i in range(27))
    write("labels.csv", content=f"file_name,label\n{rows}".encode())
    beside, listed = opened(), opened(tmp_path / "set" / "labels.csv")
    for data in (beside, listed):
        assert len(data.train) + len(data.test) == 9
        assert noted(data, "27 rows", "9 images")


def test_labels_with_underscores_stay_apart_and_rows_without_columns_are_named(write, opened):
    flat(write, 12)
    rows = "".join(f"{i:03}.png,{('1_1', '11', '2_1')[i % 3]}\n" for i in range(12))
    write("labels.csv", content=f"file_name,label\n{rows}".encode())
    assert opened().classes == ("11", "1_1", "2_1")
    write("metadata.jsonl", content=b"1\n2\n")
    with pytest.raises(UserError, match="cannot read the table"):
        opened()
