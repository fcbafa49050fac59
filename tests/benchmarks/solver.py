"""Many probes in one solve against scikit-learn, one at a time, and the published scheme.

20,552 x 1,536 float32 with a decaying spectrum and a planted direction: the paper's MIDOG, at the
width of its largest encoders. Training sets of 13, 132, 1,316 and 13,154 rows, five times; a path
of 45 C on the largest, five times; and one of these fits alone. Memory is what a solve holds beside
the embeddings, as tracemalloc sees it.
"""

import tracemalloc

import numpy as np
import torch
from scipy.linalg import solve
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from probes.solvers import lbfgs
from tests.benchmarks.clock import best_s, line

N, DIM, SIZES, REPEATS = 20_552, 1_536, (13, 132, 1_316, 13_154), 5
C_UNI, C_L2 = DIM * 2 / 100, 1.0
PATH = np.logspace(-6, 5, 45)
# CCMCT, at the width of Virchow
LARGE_N, LARGE_DIM, LARGE_SIZES = 72_845, 2_560, (47, 467, 4_663, 46_621)


def _rows(n, dim, rng):
    spectrum = (10 / (1 + np.arange(dim))).astype(np.float32)  # steep, as that of embeddings is
    X = rng.standard_normal((n, dim), dtype=np.float32)
    X *= spectrum
    signal = (X[:, 5:200] / spectrum[5:200]).sum(axis=1) / 14
    return X, (signal + rng.normal(size=n) > 0).astype(int)


def _data(n=N, dim=DIM, sizes=SIZES):
    rng = np.random.default_rng(0)
    X, codes = _rows(n, dim, rng)
    weights = np.zeros((n, REPEATS * len(sizes)))
    for repeat in range(REPEATS):
        order = rng.permutation(n)
        for place, size in enumerate(sizes):
            weights[order[:size], repeat * len(sizes) + place] = 1
    return X, codes, weights


def _ours(X, codes, weights, objective, C):
    settings = {"objective": objective, "C": C, "max_iter": 1_000, "tol": 1e-8}
    solution = lbfgs.solve(X, codes, weights, n_classes=2, **settings)
    assert solution.converged.all()
    return solution


def _scikit_learn(X, codes, C):
    """Return the objective of scikit-learn's default solver, in float64."""
    model = LogisticRegression(C=C, max_iter=1_000).fit(X, codes)
    weights = model.coef_[0].astype(float)
    scores = X.astype(float) @ weights + model.intercept_[0]
    losses = np.logaddexp(0, np.where(codes == 1, -scores, scores))
    return C * losses.sum() + weights @ weights / 2


def _published(X, codes):
    """The scheme that the UNI paper publishes: full-batch L-BFGS of torch, one fit at a time."""
    rows, targets = torch.from_numpy(X), torch.from_numpy(codes)
    layer = torch.nn.Linear(X.shape[1], 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe", max_iter=1_000)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(rows), targets)
        loss = loss + _published_penalty(layer)
        loss.backward()
        return loss

    optimiser.step(closure)
    return _in_float64(layer, rows, targets)


def _in_float64(layer, rows, targets):
    """The published objective, and the largest entry of its gradient, as they truly are."""
    layer = layer.double()
    layer.zero_grad()
    loss = torch.nn.functional.cross_entropy(layer(rows.double()), targets)
    loss = loss + _published_penalty(layer)
    loss.backward()
    return loss.item(), max(part.grad.abs().max().item() for part in layer.parameters())


def _published_penalty(layer):
    n_classes, dim = layer.weight.shape
    return 0.5 / (dim * n_classes / 100) * layer.weight.norm()


def _held_share(X, codes, weights, objective, C):
    """Peak of what a solve holds, as a share of the embeddings."""
    tracemalloc.start()
    _ours(X, codes, weights, objective, C)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / X.nbytes


def _slow_minimum(X, codes):
    """Least value of the published objective of one fit, in float64, by SciPy and by Newton steps.

    Two classes leave W = (-v/2, v/2), of norm(v) / sqrt(2); the intercept is the last entry.
    """
    rows = np.hstack([X, np.ones((len(X), 1))], dtype=float)
    signs, strength = 2 * codes - 1, 0.5 / C_UNI / np.sqrt(2)

    def value_and_gradient(point):
        wrong = expit(-signs * (rows @ point))
        norm = np.linalg.norm(point[:-1])
        gradient = rows.T @ (-signs * wrong) / len(rows)
        gradient[:-1] += strength * point[:-1] / norm
        return np.logaddexp(0, -signs * (rows @ point)).mean() + strength * norm, gradient

    def hessian(point):
        shares = expit(rows @ point)
        second = (rows * (shares * (1 - shares) / len(rows))[:, None]).T @ rows
        norm = np.linalg.norm(point[:-1])
        along = point[:-1] / norm
        second[:-1, :-1] += strength / norm * (np.eye(len(along)) - np.outer(along, along))
        return second

    start = np.full(rows.shape[1], 1e-3)
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B").x
    for _ in range(30):
        value, gradient = value_and_gradient(found)
        if np.abs(gradient).max() < 1e-11:
            return value
        step = solve(hessian(found), gradient, assume_a="sym")
        length = 1.0
        while length > 1e-9 and value_and_gradient(found - length * step)[0] > value:
            length /= 2
        found = found - length * step
    raise RuntimeError(f"the minimiser stopped at a gradient of {np.abs(gradient).max():.1e}")


def _curve(X, codes, weights):
    theirs, found = [], {}
    fits = weights.T > 0
    for objective, C in (("l2", C_L2), ("uni", C_UNI)):
        found[objective + "_s"] = best_s(
            lambda objective=objective, C=C: found.update(
                {objective: _ours(X, codes, weights, objective, C)}
            )
        )
    theirs_s = best_s(
        lambda: theirs.extend(_scikit_learn(X[fit], codes[fit], C_L2) for fit in fits), runs=1
    )
    yield line("l2, 20 fits", found["l2_s"], "scikit-learn", theirs_s)
    excess = (found["l2"].objective / np.array(theirs) - 1).max()
    yield f"l2, largest relative excess of our objective over scikit-learn's: {excess:.1e}"
    published = []
    theirs_s = best_s(
        lambda: published.extend(_published(X[fit], codes[fit]) for fit in fits), runs=1
    )
    values, gradients = np.transpose(published)
    yield line("uni, 20 fits", found["uni_s"], "published scheme", theirs_s)
    excess = (found["uni"].objective / values - 1).max()
    yield f"uni, largest relative excess of our objective over the published scheme's: {excess:.1e}"
    first = range(len(SIZES))  # one fit of each size
    least = np.array([_slow_minimum(X[fits[fit]], codes[fits[fit]]) for fit in first])
    gap = np.abs(found["uni"].objective[: len(SIZES)] / least - 1).max()
    yield f"uni, largest relative gap to the minimum by Newton's method in float64: {gap:.1e}"
    ours = found["uni"].gradient_norm.max()
    yield f"uni, largest final gradient: {ours:.1e}; published scheme {gradients.max():.1e}"
    path_s = best_s(lambda: _ours(X, codes, *_path(weights)))
    yield line("l2, path of 45 C x 5 repeats, beside 20 fits", found["l2_s"], "path", path_s)


def _path(weights):
    """Weights, objective and C of 225 fits."""
    return np.repeat(weights[:, 3::4], len(PATH), axis=1), "l2", np.tile(PATH, REPEATS)


def _single(X, codes):
    one = np.ones((len(X), 1))
    ours_s = best_s(lambda: _ours(X, codes, one, "l2", C_L2))
    theirs_s = best_s(lambda: _scikit_learn(X, codes, C_L2), runs=1)
    yield line(f"l2, one fit on {len(X):,} x {DIM:,}", ours_s, "scikit-learn", theirs_s)


def _memory(X, codes, weights):
    for objective, C in (("l2", C_L2), ("uni", C_UNI)):
        share = _held_share(X, codes, weights, objective, C)
        yield f"{objective}, 20 fits, held beside the embeddings: {100 * share:.0f} % of them"
    share = _held_share(X, codes, *_path(weights))
    yield f"l2, 225 fits, held beside the embeddings: {100 * share:.0f} % of them"


def _large_held():
    rng = np.random.default_rng(1)
    X, codes = _rows(LARGE_N, LARGE_DIM, rng)
    weights = (rng.random((len(X), 5)) < 0.64).astype(float)
    share = _held_share(X, codes, weights, "uni", LARGE_DIM * 2 / 100)
    yield (
        f"uni, 5 fits on {LARGE_N:,} x {LARGE_DIM:,}, held beside the embeddings: "
        f"{100 * share:.0f} % of them"
    )


def run_large():
    """Yield the ratios on CCMCT's size; the others fit one repeat, whose time counts five times."""
    X, codes, weights = _data(LARGE_N, LARGE_DIM, LARGE_SIZES)
    first = weights.T[: len(LARGE_SIZES)] > 0
    size = f"20 fits on {LARGE_N:,} x {LARGE_DIM:,}"
    for objective, C, name, theirs in (
        ("l2", C_L2, "scikit-learn", lambda X, codes: (_scikit_learn(X, codes, C_L2), 0)),
        ("uni", LARGE_DIM * 2 / 100, "published scheme", _published),
    ):
        found, values = {}, []
        ours_s = best_s(
            lambda objective=objective, C=C, found=found: found.update(
                ours=_ours(X, codes, weights, objective, C)
            ),
            runs=1,
        )
        theirs_s = best_s(
            lambda theirs=theirs, values=values: values.extend(
                theirs(X[fit], codes[fit])[0] for fit in first
            ),
            runs=1,
        )
        yield line(f"{objective}, {size}", ours_s, f"{name}, one repeat x 5", REPEATS * theirs_s)
        excess = (found["ours"].objective[: len(LARGE_SIZES)] / np.array(values) - 1).max()
        yield f"{objective}, largest relative excess over the objective of the {name}: {excess:.1e}"


def run():
    """Yield one line per comparison."""
    X, codes, weights = _data()
    yield from _curve(X, codes, weights)
    kept = weights[:, 3] > 0
    yield from _single(X[kept], codes[kept])
    yield from _memory(X, codes, weights)
    yield from _large_held()
