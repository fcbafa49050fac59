"""All fits and all draws at once against scikit-learn, one fit and one draw at a time.

The paper's MIDOG: 4,110 annotations in the test part, 20 fits, 2,000 draws of 354 slides; and one
fit of a million annotations. The loops over draws are timed on a few of them, and counted as if
they had made all.
"""

import tracemalloc

import numpy as np
from sklearn.metrics import roc_auc_score

from probes.metrics import auroc, bootstrap, delong_covariance
from tests.benchmarks.clock import best_s, line

N, FITS, SLIDES, REPEATS, REPEATS_OF_LOOP = 4_110, 20, 354, 2_000, 10
MILLION, REPEATS_OF_MILLION = 1_000_000, 20


def _tested(n=N, fits=FITS):
    rng = np.random.default_rng(0)
    labels, slides = rng.random(n) < 9_501 / 20_552, rng.integers(0, SLIDES, n)
    return labels, labels[:, None] + rng.normal(size=(n, fits)), slides


def _one_by_one(labels, scores_NF):
    return np.array([roc_auc_score(labels, scores) for scores in scores_NF.T])


def _draw_rows(labels, scores_NF, slides):
    """Repeat the rows of the slides that are drawn, and compute each fit from them."""
    rows_of = [np.flatnonzero(slides == slide) for slide in dict.fromkeys(slides.tolist())]
    draws = np.random.default_rng(42).integers(len(rows_of), size=(REPEATS_OF_LOOP, len(rows_of)))
    values = []
    for drawn in draws:
        rows = np.concatenate([rows_of[slide] for slide in drawn])
        values.append(_one_by_one(labels[rows], scores_NF[rows]))
    return np.array(values)


def _all_pairs(labels, scores_NF):
    """DeLong's covariance by its definition: every pair is compared."""
    components = []
    for scores in scores_NF.T:
        wins_PM = np.heaviside(scores[labels][:, None] - scores[~labels], 0.5)
        components.append((wins_PM.mean(axis=1), wins_PM.mean(axis=0)))
    of_positives, of_others = (np.stack(of_class) for of_class in zip(*components, strict=True))
    return np.cov(of_positives) / labels.sum() + np.cov(of_others) / (~labels).sum()


def run():
    """Yield one line per comparison."""
    labels, scores_NF, slides = _tested()
    found = {}
    yield line(
        f"AUROC of {FITS} fits",
        best_s(lambda: found.update(auroc=auroc(labels, scores_NF))),
        "scikit-learn in a loop",
        best_s(lambda: found.update(loop=_one_by_one(labels, scores_NF))),
    )
    yield line(
        f"covariance of {FITS} AUROCs",
        best_s(lambda: found.update(fast=delong_covariance(labels, scores_NF)[1])),
        "all pairs",
        best_s(lambda: found.update(pairs=_all_pairs(labels, scores_NF)), runs=1),
    )
    yield line(
        f"bootstrap by slide, {REPEATS:,} draws of {FITS} fits",
        best_s(
            lambda: found.update(
                draws=bootstrap("auroc", labels, scores_NF, groups=slides, repeats=REPEATS)
            )
        ),
        "repeating rows",
        best_s(lambda: found.update(rows=_draw_rows(labels, scores_NF, slides)), runs=1)
        * (REPEATS / REPEATS_OF_LOOP),
    )
    yield from _of_a_million()
    worst = {
        "AUROC": np.abs(found["auroc"] - found["loop"]).max(),
        "covariance": np.abs(found["fast"] - found["pairs"]).max(),
        "draws": np.abs(found["draws"].values[:REPEATS_OF_LOOP] - found["rows"]).max(),
    }
    yield "largest differences: " + ", ".join(f"{name} {gap:.0e}" for name, gap in worst.items())


def _of_a_million():
    """Yield the time of draws of many annotations, and the memory that they take."""
    labels, scores_N1, slides = _tested(MILLION, 1)
    scores = scores_N1[:, 0]

    def draw():
        bootstrap("auroc", labels, scores, groups=slides, repeats=REPEATS_OF_MILLION)

    def weigh():
        weights = np.random.default_rng(0).integers(0, 3, SLIDES)[slides]
        roc_auc_score(labels, scores, sample_weight=weights)

    yield line(
        f"bootstrap by slide of {MILLION:,} annotations, {REPEATS_OF_MILLION} draws",
        best_s(draw, runs=1),
        "scikit-learn with weights",
        best_s(weigh, runs=1) * REPEATS_OF_MILLION,
    )
    tracemalloc.start()
    draw()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scores_mb = scores.nbytes / 1e6
    yield f"most memory of these draws: {peak_bytes / 1e6:.0f} MB; the scores {scores_mb:.0f} MB"
