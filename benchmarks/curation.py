"""Do the lists of ``frossl explore`` find what was planted, and is ``frossl predict`` as sure as it is right?

    python benchmarks/curation.py --cifar10 FOLDER --fashion-mnist fashion-mnist --encoder FILE [FILE ...]
    python benchmarks/curation.py --table > docs/results/curation.md

Images of CIFAR-10 with near-duplicates, wrong labels and images of Fashion-MNIST planted among them, by the encoder
of the recipe ``cifar10-cpu`` (one file for all seeds, or one a seed), the same encoder untrained, ``lite0`` and raw
pixels. What is planted is the same for all of them.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn.functional import interpolate, pad

from common import (
    Row,
    elsewhere,
    environment,
    heading,
    measured_rows,
    parse_arguments,
    read_or_run,
    seeds_in_words,
    spread,
    table,
)
from frossl.curate.duplicates import ALIKE, NEIGHBOURS, both_candidates, candidate_pairs, correlations
from frossl.curate.lists import choose, outlier_scores
from frossl.curate.neighbours import nearest
from frossl.curate.probe import calibration_error, predict_labels, probe_space, suspicious_labels
from frossl.curate.space import reduced, unit
from frossl.data import open_data
from frossl.data.types import Split
from frossl.evals.extract import Extractor, first, pixels
from frossl.evals.suite import untrained_encoder
from frossl.runs.encoders import load_any_encoder

ARMS = ("trained", "untrained", "lite0", "raw pixels")
SAME = ("arm", "seed", "images", "size")
IMAGES, PLANTED, STRANGERS, HELD_OUT = 20_000, 500, 200, 5_000
KINDS = ("recompressed", "resized", "shifted", "brighter")
FLIPPED = 0.05
SIMILAR = {0: 8, 1: 9, 2: 0, 3: 5, 4: 7, 5: 3, 6: 2, 7: 4, 8: 0, 9: 1}
"""The class that each of CIFAR-10 is most like: aeroplane and ship, car and lorry, cat and dog, deer and horse."""
CHOSEN, DRAWS = (100, 250), 10
OWN = 0.9
"""Correlation of pixels from which two images that nobody planted may be near-duplicates that CIFAR-10 has itself."""


@dataclass(frozen=True)
class Planted:
    """Images, then copies of some of them, then strangers, then held-out ones; all uint8 ``(N, 3, 32, 32)``."""

    images: Tensor
    labels: Tensor
    sources: Tensor
    copies: Tensor
    strangers: Tensor
    held_out: Split


def plant(cifar10: str, fashion: str, count: int, seed: int) -> Planted:
    """What is planted of ``seed``, with ``count`` images of CIFAR-10."""
    data, other = open_data(cifar10), open_data(fashion)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data.train), generator=generator)[:count]
    base = data.train.select(chosen)
    assert isinstance(base.images, Tensor)
    assert isinstance(other.train.images, Tensor)
    assert base.labels is not None
    sources = torch.randperm(count - PLANTED, generator=generator)[:PLANTED]
    copies = torch.stack([copy(base.images[i], KINDS[n % len(KINDS)]) for n, i in enumerate(sources.tolist())])
    odd = other.train.images[torch.randperm(len(other.train), generator=generator)[:STRANGERS]]
    odd = pad(odd, (2, 2, 2, 2)).expand(-1, 3, -1, -1)
    held_out = data.test.select(torch.randperm(len(data.test), generator=generator)[:HELD_OUT])
    return Planted(base.images, base.labels, sources, copies, odd, held_out)


def copy(x_CHW: Tensor, kind: str) -> Tensor:
    """A near-duplicate of an image."""
    if kind == "recompressed":
        file = io.BytesIO()
        Image.fromarray(x_CHW.permute(1, 2, 0).numpy()).save(file, "jpeg", quality=50)
        return (
            torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8).view(32, 32, 3).permute(2, 0, 1)
        )
    x = x_CHW[None].float()
    if kind == "resized":
        x = interpolate(interpolate(x, 24, mode="bicubic", antialias=True), 32, mode="bicubic")
    elif kind == "shifted":
        x = pad(x, (2, 0, 2, 0), mode="replicate")[:, :, :32, :32]
    else:
        x = x * 1.2
    return x[0].round().clamp(0, 255).byte()


def vectors(arm: str, encoder: str, size: int, parts: list[Tensor], seed: int) -> list[Tensor]:
    """Features of uint8 images, part by part."""
    net, spec = load_any_encoder("lite0" if arm == "lite0" else encoder, size=size if arm == "lite0" else None)
    extractor = Extractor()
    if arm == "untrained":
        net = untrained_encoder(spec, seed)
        extractor.settle_batch_norm(net, first(Split(parts[0]), 5000), spec)
    if arm == "raw pixels":
        net, spec = pixels(spec)
    return [extractor.split(net, Split(x), spec) for x in parts]


def duplicates(found: Tensor, planted: Planted) -> Row:
    """Recall of each kind at a precision of 0.95, by features alone and by pixels of their neighbours."""
    base = len(planted.images) - PLANTED
    x = torch.cat([planted.images[:base], planted.copies])
    z = unit(found)
    index = nearest(z, z, NEIGHBOURS, same=True)[1]
    pairs, by_features = both_candidates(index, x), candidate_pairs(index)
    near = torch.isin(pairs @ torch.tensor([len(x), 1]), by_features @ torch.tensor([len(x), 1]))
    alike = correlations(x, pairs)
    kinds = torch.full((len(pairs),), -1)
    copied = pairs[:, 1] - base
    true = (copied >= 0) & (pairs[:, 0] == planted.sources[copied.clamp_min(0)])
    kinds[true] = copied[true] % len(KINDS)
    unknown = (pairs[:, 1] < base) & (alike >= OWN)
    row: Row = {"own_pairs": int(unknown.sum()), "pairs": len(pairs), "pairs_by_features": len(by_features)}
    cosine = (z[pairs[:, 0]] * z[pairs[:, 1]]).sum(1)
    for name, score, of in (("features", cosine, near), ("confirmed", alike, near), ("both", alike, alike > -2)):
        for kept, asked in (("", of & ~unknown), ("_strict", of)):
            row |= {f"{name}{kept}_{k}": v for k, v in recall_at(score[asked], kinds[asked]).items()}
    listed = (alike >= ALIKE) & ~unknown
    row["listed_precision"] = true[listed].float().mean().item()
    row |= {f"listed_{k}": int((kinds[listed] == n).sum()) / (PLANTED // 4) for n, k in enumerate(KINDS)}
    return row


def recall_at(score_P: Tensor, kind_P: Tensor, precision: float = 0.95) -> dict[str, float]:
    """Share of the copies of each kind that are above the lowest score down to which pairs are so precise."""
    order = score_P.argsort(descending=True)
    kinds = kind_P[order]
    precise = (kinds >= 0).cumsum(0) / torch.arange(1, len(kinds) + 1) >= precision
    above = kinds[: int(precise.nonzero().max()) + 1 if bool(precise.any()) else 0]
    return {name: int((above == n).sum()) / (PLANTED // len(KINDS)) for n, name in enumerate(KINDS)}


def wrong_labels(found: Tensor, labels: Tensor, seed: int) -> Row:
    """Precision and recall of the labels that are flagged, and average precision of the order."""
    row: Row = {}
    generator = torch.Generator().manual_seed(100 + seed)
    x = probe_space(found)
    for how in ("random", "similar"):
        y, flipped = labels.clone(), torch.zeros(len(labels), dtype=torch.bool)
        chosen = torch.randperm(len(y), generator=generator)[: round(FLIPPED * len(y))]
        flipped[chosen] = True
        if how == "random":
            y[chosen] = (y[chosen] + torch.randint(1, 10, (len(chosen),), generator=generator)) % 10
        else:
            y[chosen] = torch.tensor([SIMILAR[int(c)] for c in y[chosen]])
        seen = suspicious_labels(x, y, 10, seed)
        row[f"{how}_precision"] = flipped[seen.flagged].float().mean().item()
        row[f"{how}_recall"] = seen.flagged[flipped].float().mean().item()
        row[f"{how}_average_precision"] = float(average_precision_score(flipped.numpy(), seen.score.numpy()))
    return row


def strangers(found: Tensor) -> Row:
    """Share of the strangers, the last images, that are among as many of the highest scores."""
    first_ones = outlier_scores(found).argsort(descending=True)[:STRANGERS]
    return {"recall": (first_ones >= len(found) - STRANGERS).float().mean().item()}


def few_labels(base: Tensor, held_out: Tensor, planted: Planted, seed: int) -> Row:
    """Accuracy on held-out images from chosen labels, and how well probabilities are calibrated."""
    z, x = reduced(unit(base)), probe_space(torch.cat([base, held_out]))  # which choose would do at every draw
    test = torch.arange(len(base), len(x))
    y_test, row = planted.held_out.labels, {}
    assert y_test is not None
    for count in CHOSEN:
        draws: dict[str, list[float]] = {}
        for how in ("uniform", "random", "typical"):
            got: dict[str, list[float]] = {"accuracy": [], "calibration": [], "coverage_90": [], "promised": []}
            for draw in range(DRAWS):
                generator = torch.Generator().manual_seed(1000 * seed + draw)
                if how == "uniform":
                    chosen = torch.randperm(len(base), generator=generator)[:count]
                else:
                    chosen = choose(z, count, how, 1000 * seed + draw)
                said = predict_labels(x, chosen, planted.labels[chosen], 10, draw)
                sure, best = said.probabilities[test].max(1)
                right = best == y_test
                most = sure.argsort(descending=True)[: round(0.9 * len(sure))]
                got["accuracy"].append(right.float().mean().item())
                got["coverage_90"].append(right[most].float().mean().item())
                got["calibration"].append(calibration_error(sure, right))
                got["promised"].append(said.right.float().mean().item())
            row |= {f"{how}_{count}_{name}": sum(values) / DRAWS for name, values in got.items()}
            draws[how] = got["accuracy"]
        for how in ("random", "typical"):
            row[f"{how}_{count}_wins"] = sum(a > b for a, b in zip(draws[how], draws["uniform"], strict=True))
    return row


def study(arm: str, encoder: str, size: int, cifar10: str, fashion: str, count: int, seed: int, threads: int) -> Row:
    torch.set_num_threads(threads)
    planted = plant(cifar10, fashion, count, seed)
    held_out = planted.held_out.images
    assert isinstance(held_out, Tensor)
    parts = [planted.images, planted.copies, planted.strangers, held_out]
    base, copies, odd, test = vectors(arm, encoder, size, parts, seed)
    return {
        "duplicates": duplicates(torch.cat([base[: count - PLANTED], copies]), planted),
        "labels": wrong_labels(base, planted.labels, seed),
        "outliers": strangers(torch.cat([base[: count - STRANGERS], odd])),
        "few": few_labels(base, test, planted, seed),
        "features": base.shape[1],
    }


def jobs(args: argparse.Namespace) -> Iterator[tuple[Row, Any, tuple[Any, ...]]]:
    about = environment(args.threads, "timm", "scikit-learn")
    for seed in args.seeds:
        encoder = args.encoder[seed % len(args.encoder)]
        for arm in args.arms:
            row = {"arm": arm, "seed": seed, "images": args.images, "size": args.lite0_size, "environment": about}
            places = args.lite0_size, args.cifar10, args.fashion_mnist
            yield row, study, (arm, encoder, *places, args.images, seed, args.threads)


def show(rows: list[Row], out: Path) -> str:
    """The page of results."""
    rows = measured_rows(rows, SAME)
    parts = sections(rows)
    about = rows[0]["environment"]
    seeds = seeds_in_words(sorted({row["seed"] for row in rows}))
    command = "python benchmarks/curation.py --cifar10 FOLDER --fashion-mnist fashion-mnist --encoder FILE"
    note = (
        f"Planted among {rows[-1]['images']:,} images of CIFAR-10, {seeds}. Trained: the encoder of the recipe "
        f"`cifar10-cpu`; untrained: the same, with random weights; lite0 sees {rows[-1]['size']} pixels. "
        "Everything planted is the same for all. How outliers are measured, and from which correlation images are "
        "near-duplicates, was chosen on parts of seed 0, with strangers of Fashion-MNIST too: these rows are no "
        f"held-out test of that choice.{elsewhere(rows)}"
    )
    return "\n\n".join([heading("Curation", f"{command}; --table", about, note), *parts, f"Rows: `{out.name}`."])


def sections(rows: list[Row]) -> Iterator[str]:
    """A table for each question; a line for each arm."""

    def lines(part: str, names: list[str]) -> list[list[str]]:
        arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
        of = {arm: [row[part] for row in rows if row["arm"] == arm] for arm in arms}
        return [[arm, *(spread([row.get(name) for row in of[arm]], 3) for name in names)] for arm in arms]

    yield (
        f"## Near-duplicates\n\nRecall of {PLANTED // len(KINDS)} copies of each kind at a precision of 0.95. Pairs "
        f"that nobody planted and whose pixels correlate by {OWN} or more, as CIFAR-10 has some, do not count; in the "
        "table of strict figures they count as wrong."
    )
    for score, title in (
        ("features", "By the cosine of features"),
        ("confirmed", "By pixels, among the ten neighbours in features"),
        ("both", "By pixels, among the neighbours in features and those in small pictures, as explore does"),
        ("both_strict", "The same, strict"),
        ("features_strict", "By the cosine of features, strict"),
    ):
        made = table(["arm", *KINDS], lines("duplicates", [f"{score}_{kind}" for kind in KINDS]))
        yield f"### {title}\n\n{made}"
    names = ["listed_precision", *(f"listed_{kind}" for kind in KINDS), "own_pairs"]
    headings = ["arm", "precision", *KINDS, "pairs of CIFAR-10's own"]
    yield f"### What `duplicates.csv` lists (correlation {ALIKE} or more)\n\n" + table(
        headings, lines("duplicates", names)
    )
    for how, title in (("random", "at random"), ("similar", "to the most similar class")):
        names = [f"{how}_{name}" for name in ("precision", "recall", "average_precision")]
        made = table(["arm", "precision", "recall", "average precision"], lines("labels", names))
        yield f"## Wrong labels: {FLIPPED:.0%} flipped {title}\n\nChance is {FLIPPED}.\n\n{made}"
    made = table(["arm", f"recall among the first {STRANGERS}"], lines("outliers", ["recall"]))
    yield f"## Outliers: {STRANGERS} images of Fashion-MNIST\n\n{made}"
    for count in CHOSEN:
        hows = ("uniform", "random", "typical")
        names = [f"{how}_{count}_accuracy" for how in hows] + [f"typical_{count}_wins", f"random_{count}_wins"]
        wins = f"draws of {DRAWS} in which"
        headings = ["arm", *hows, f"{wins} typical is above uniform", f"{wins} random is"]
        yield f"## {count} labels: accuracy by what is labelled\n\n{table(headings, lines('few', names))}"
        names = [f"uniform_{count}_{name}" for name in ("accuracy", "promised", "coverage_90", "calibration")]
        headings = ["arm", "accuracy", "by cross-validation", "at 90 % coverage", "calibration error"]
        yield f"### Calibration from {count} labels, drawn uniformly\n\n{table(headings, lines('few', names))}"
    yield (
        f"Accuracy on {HELD_OUT:,} held-out images, mean of {DRAWS} draws. `uniform` draws images at random, `random` "
        "from clusters in turn, `typical` takes the most typical image of each of as many clusters. Accuracy by "
        "cross-validation: – where it was measured with a penalty chosen on the same labels, which promised too much "
        "(`promised_before` in the rows)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cifar10", default="cifar10", help="name, or folder of Parquet files")
    parser.add_argument("--fashion-mnist", default="fashion-mnist", help="name or place of the data")
    parser.add_argument("--encoder", nargs="+", help="encoder of the recipe cifar10-cpu, one, or one a seed")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--lite0-size", type=int, default=96, help="pixels that lite0 sees")
    args = parse_arguments(parser, "curation.jsonl", threads=1, required="encoder")
    rows = read_or_run(args, jobs(args), SAME)
    print(show(rows, args.out))


if __name__ == "__main__":
    main()
