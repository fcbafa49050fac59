"""cuML against our solver on a CUDA device; `make test` skips these where there is none."""

import numpy as np
import pytest
import torch

from probes.metrics import auroc
from probes.solvers import solve
from tests.test_probes.test_solvers_sklearn import Cs, draw

pytest.importorskip("cuml")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("objective", ["uni", "l2"])
@pytest.mark.parametrize(("n", "dim"), [(150, 6), (2_000, 64), (40, 100)])
def test_cuml_and_our_solver_find_one_optimum(n, dim, objective, n_classes):
    """Its stopping rule is another, so parity is in objective and AUROC, not in weights."""
    X, codes, weights = draw(n, dim, n_classes)
    settings = {"n_classes": n_classes, "objective": objective, "C": Cs[objective]}
    ours = solve(X, codes, weights, **settings)
    theirs = solve(X, codes, weights, solver="cuml", **settings)
    np.testing.assert_allclose(theirs.objective, ours.objective, rtol=1e-6)
    assert theirs.converged.all()
    for fit in range(3):
        here, there = (
            score(codes, X @ each.weights[fit].T + each.intercepts[fit]) for each in (ours, theirs)
        )
        assert here == pytest.approx(there, abs=1e-4)


def score(codes, logits):
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return auroc(codes, shares, np.arange(shares.shape[1]))


def test_a_tensor_on_the_device_is_not_brought_back():
    X, codes, weights = draw(2_000, 64)
    tensor = torch.from_numpy(X).cuda()
    settings = {"n_classes": 2, "objective": "l2", "C": 1.0, "solver": "cuml"}
    there = solve(tensor, codes, weights, **settings)
    np.testing.assert_allclose(
        there.objective, solve(X, codes, weights, **settings).objective, rtol=1e-9
    )
    assert tensor.is_cuda
    np.testing.assert_array_equal(tensor.cpu().numpy(), X)


def test_a_collapse_is_seen_before_any_fit():
    X, codes, weights = draw()
    found = solve(X, codes, weights, n_classes=2, C=1e-6, solver="cuml")
    assert found.collapsed.all()
    assert not found.weights.any()


def test_rows_that_a_weak_penalty_lets_a_probe_separate_do_not_end_it():
    X, codes, weights = draw(150, 300)
    theirs = solve(X, codes, weights[:, :1], n_classes=2, objective="l2", C=1e5, solver="cuml")
    ours = solve(X, codes, weights[:, :1], n_classes=2, objective="l2", C=1e5)
    np.testing.assert_allclose(theirs.objective, ours.objective, rtol=1e-3)
