"""20 probes in one solve against scikit-learn, one at a time, and the published scheme.

20,552 x 1,536 float32 with a decaying spectrum and a planted direction: the paper's MIDOG, at the
width of its largest encoders. Training sets of 13, 132, 1,316 and 13,154 rows, five times.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from probes.solvers import solve
from tests.benchmarks.clock import best_s, line

N, DIM, SIZES, REPEATS = 20_552, 1_536, (13, 132, 1_316, 13_154), 5
C_UNI, C_L2 = DIM * 2 / 100, 1.0


def _data():
    rng = np.random.default_rng(0)
    spectrum = 10 / (1 + np.arange(DIM))  # steep, as the covariance of embeddings is
    X = (rng.standard_normal((N, DIM), dtype=np.float32) * spectrum).astype(np.float32)
    signal = (X[:, 5:200] / spectrum[5:200]).sum(axis=1) / 14
    codes = (signal + rng.normal(size=N) > 0).astype(int)
    weights = np.zeros((N, REPEATS * len(SIZES)))
    for repeat in range(REPEATS):
        order = rng.permutation(N)
        for place, size in enumerate(SIZES):
            weights[order[:size], repeat * len(SIZES) + place] = 1
    return X, codes, weights


def _scikit_learn(X, codes, weights):
    for fit in weights.T > 0:
        LogisticRegression(C=C_L2, max_iter=1_000).fit(X[fit], codes[fit])


def _published(X, codes):
    """The scheme that the UNI paper publishes: full-batch L-BFGS of torch, one fit at a time."""
    rows, targets = torch.from_numpy(X), torch.from_numpy(codes)
    layer = torch.nn.Linear(DIM, 2)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe", max_iter=1_000)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(rows), targets)
        loss = loss + 0.5 / C_UNI * layer.weight.norm()
        loss.backward()
        return loss

    optimiser.step(closure)
    return _loss_in_float64(layer, rows, targets)


@torch.no_grad()
def _loss_in_float64(layer, rows, targets):
    """The published loss without the rounding of float32, which is larger than what is left."""
    logits = rows.double() @ layer.weight.double().T + layer.bias.double()
    loss = torch.nn.functional.cross_entropy(logits, targets)
    return (loss + 0.5 / C_UNI * layer.weight.double().norm()).item()


def _published_all(X, codes, weights):
    return [_published(X[fit], codes[fit]) for fit in weights.T > 0]


def run():
    """Yield one line per comparison."""
    X, codes, weights = _data()
    solutions = {}

    def ours(objective, C):
        solutions[objective] = solve(X, codes, weights, n_classes=2, objective=objective, C=C)

    ours_l2 = best_s(lambda: ours("l2", C_L2))
    theirs_l2 = best_s(lambda: _scikit_learn(X, codes, weights), runs=1)
    yield line("l2, 20 fits", ours_l2, "scikit-learn", theirs_l2)
    ours_uni = best_s(lambda: ours("uni", C_UNI))
    losses = []
    theirs_uni = best_s(lambda: losses.extend(_published_all(X, codes, weights)), runs=1)
    yield line("uni, 20 fits", ours_uni, "published scheme", theirs_uni)
    worst = (solutions["uni"].objective - np.array(losses)).max()
    yield f"uni, largest excess of our objective over the published scheme's: {worst:.1e}"
    gradient = max(solution.gradient_norm.max() for solution in solutions.values())
    yield f"largest final gradient of ours: {gradient:.1e}"
