"""An audit of 20 splits against a count of all pairs, which is timed on a few splits and images.

Positions like CCMCT's: 72,845 cells in clusters on 32 slides, the largest with 21 % of them; and
MIDOG++ where FEATSTORE_TEST_DATA names a folder that has it, and there the cosines of real patches
that the default of --near was chosen by. Last, standard errors of what leakage costs, beside the
scatter that they stand for.
"""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import probes
from featstore.annotations import AnnotationTable
from probes.protocols import InMemory
from tests.benchmarks.clock import best_s, line

N, SLIDES, LARGEST, CLUSTER, DIM = 72_845, 32, 0.21, 6, 1_536
DATASETS, CELLS = 60, 1_500  # without leakage, for standard errors
ROWS_OF_COUNT = 500  # tested patches that are held against every training patch of their image


def _table(name, ids, labels, columns):
    return SimpleNamespace(name=name, digest="", ids=ids, labels=labels, column=columns.__getitem__)


def _like_ccmct():
    rng = np.random.default_rng(0)
    shares = np.append(LARGEST, (1 - LARGEST) * rng.dirichlet(np.full(SLIDES - 1, 2.0)))
    clusters = N // CLUSTER
    slide_of_cluster = rng.choice(SLIDES, clusters, p=shares)
    centres = rng.uniform(0, 80_000, (clusters, 2))
    cluster = rng.integers(0, clusters, N)
    x, y = (centres[cluster] + rng.normal(0, 300, (N, 2))).T
    slides = slide_of_cluster[cluster]
    labels = np.where(rng.random(N) < 44_880 / N, "mitotic figure", "look-alike")
    return _table("like CCMCT", np.arange(N), labels, {"slide": slides, "x": x, "y": y})


def _midog():
    from featstore.datasets.midog import read_midog

    home = Path(os.environ["FEATSTORE_TEST_DATA"])
    return read_midog(home / "annotations" / "MIDOG++.json", name="MIDOG++").table


def _count(table, split):
    """Overlapping patches among the first that are tested, and how many were looked at."""
    corners = np.floor(np.stack([table.column("x"), table.column("y")], axis=1) - 112 + 0.5)
    slides = table.column("slide")
    row_of = {key: row for row, key in enumerate(table.ids.tolist())}
    training = np.array([row_of[key] for key in np.append(split.train, split.val).tolist()])
    found = []
    for key in split.test[:ROWS_OF_COUNT].tolist():
        row = row_of[key]
        others = training[slides[training] == slides[row]]
        found.append((np.abs(corners[others] - corners[row]).max(axis=1) < 224).any())
    return found


def _lines(table):
    splits = probes.monte_carlo(table)
    found = {}
    ours_s = best_s(lambda: found.update(audit=probes.audit(table, splits)))
    largest = splits[-1]
    count_s = best_s(lambda: found.update(count=_count(table, largest)), runs=1)
    whole_s = count_s / ROWS_OF_COUNT * sum(len(split.test) for split in splits)
    yield line(
        f"{table.name}, {len(table.ids):,} annotations x {len(splits)} splits",
        ours_s,
        "counting all pairs",
        whole_s,
    )
    table_s = best_s(lambda: found.update(rows=len(found["audit"].to_frame())), runs=1)
    of_test = found["audit"].of("overlapping", part=4, against=3)[:, -1]
    ours = np.isin(largest.test[:ROWS_OF_COUNT], table.ids[of_test])
    differ = int((ours != np.array(found["count"])).sum())
    yield (
        f"its table of {found['rows']:,} rows: {table_s:.2f} s; of {ROWS_OF_COUNT} tested patches "
        f"{int(ours.sum())} overlap, {differ} of them not in both"
    )


def _embeddings(ids):
    """Rows whose directions spread as an encoder's do, one pair of them equal."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((len(ids), DIM), dtype=np.float32)
    values *= np.arange(1, DIM + 1, dtype=np.float32) ** -0.7
    values[0] = values[-1]
    return InMemory(ids, values)


def _as_jpeg(image):
    from PIL import Image

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return Image.open(buffer).convert("RGB")


def _embedded(encoder, images, aside_px=0):
    """Directions of the middles of 128 px patches, in batches of 32."""
    from PIL import Image

    box = (4 + aside_px, 4, 124 + aside_px, 124)
    pixels = [np.asarray(i.crop(box).resize((224, 224), Image.Resampling.BICUBIC)) for i in images]
    batches = [np.stack(pixels[k : k + 32]) for k in range(0, len(pixels), 32)]
    values = np.concatenate([np.asarray(encoder.embed(batch)) for batch in batches])
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _cosines():
    from PIL import Image

    from featstore.encoders.build import build

    home = Path(os.environ["FEATSTORE_TEST_DATA"]) / "ami_br_midog21_train"
    images = [Image.open(path).convert("RGB") for path in sorted(home.glob("*/*.png"))]
    encoder = build("efficientnet-lite0")
    whole = _embedded(encoder, images)
    between = whole @ whole.T
    np.fill_diagonal(between, -1)
    yield f"EfficientNet-Lite0, {len(images):,} cells: cosine of two at most {between.max():.3f}"
    some, of_some = images[::8], whole[::8]
    for name, changed in [
        ("embedded again", _embedded(encoder, some)),
        ("one pixel aside", _embedded(encoder, some, aside_px=1)),
        ("as JPEG of quality 95", _embedded(encoder, [_as_jpeg(image) for image in some])),
    ]:
        cosines = (changed * of_some).sum(axis=1)
        yield f"the same cell {name}: {cosines.min():.7f} to {cosines.max():.7f}"


def _without_leakage(seed):
    """Cells anywhere on 40 slides, four in ten patches overlapping, and a direction that tells."""
    rng = np.random.default_rng(seed)
    labels = rng.random(CELLS) < 0.45
    slides = rng.integers(0, 40, CELLS)
    columns = {"slide": slides, "x": rng.uniform(0, 30_000, CELLS), "y": np.zeros(CELLS)}
    texts = np.where(labels, "mitotic figure", "look-alike")
    table = AnnotationTable("no leakage", np.arange(CELLS), texts, columns)
    values = rng.normal(size=(CELLS, 16)).astype(np.float32)
    values[:, 0] += 1.5 * labels
    splits = probes.monte_carlo(table, train=[1.0], seed=seed)
    source = InMemory(table.ids, values, "m", "sha256:m")
    return probes.leakage_cost(source, table, splits, objective="l2")


def _errors():
    costs = [_without_leakage(seed) for seed in range(DATASETS)]
    summaries = [cost.summary().set_index("design") for cost in costs]
    for design in summaries[0].index[1:]:
        rows = [summary.loc[design] for summary in summaries]
        scatter = np.std([row["auroc_difference"] for row in rows], ddof=1)
        error = np.sqrt(np.mean([row["auroc_difference_se"] ** 2 for row in rows]))
        plain = error / np.sqrt((1 / 5 + 0.25) / (1 / 5))
        inside = [abs(row["auroc_difference"]) < 2.78 * row["auroc_difference_se"] for row in rows]
        yield (
            f"{design}: differences scatter by {scatter:.4f}, standard error {error:.4f}, over "
            f"repeats alone {plain:.4f}; 0 is inside {np.mean(inside):.0%} of the intervals"
        )


def run():
    """Yield one line per comparison."""
    table = _like_ccmct()
    yield from _lines(table)
    if os.environ.get("FEATSTORE_TEST_DATA"):
        yield from _lines(_midog())
        yield from _cosines()
    splits, source = probes.monte_carlo(table), _embeddings(table.ids)
    with_s = best_s(lambda: probes.audit(table, splits, source=source), runs=1)
    block = source.values[:2_048]
    products_s = best_s(lambda: block @ block.T) * (N / 2_048) ** 2 / 2
    yield line(f"with duplicates among {N:,} x {DIM:,}", with_s, "all products alone", products_s)
    yield from _errors()
