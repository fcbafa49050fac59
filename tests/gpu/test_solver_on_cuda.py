"""The solver on a CUDA device; `make test` skips these where there is none."""

import numpy as np
import pytest
import torch

import probes
from probes.solvers import lbfgs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def draw(n, dim, n_classes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, dim)) / np.sqrt(1 + np.arange(dim)) + 0.3
    scores = X @ rng.standard_normal((dim, n_classes))
    codes = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
    sample_weights = np.stack([np.ones(n), rng.uniform(0.2, 3, n), rng.random(n) < 0.5], axis=1)
    return X.astype(np.float32), codes, sample_weights


def run(X, codes, sample_weights, objective, C):
    how = {"n_classes": codes.max() + 1, "objective": objective, "C": C}
    return lbfgs.solve(X, codes, sample_weights, **how, max_iter=1000, tol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("objective", "C"), [("uni", 400.0), ("l2", 1.0)])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("n", "dim"), [(20_000, 600), (3_000, 200), (300, 200), (90, 200)])
def test_rows_on_the_gpu_give_the_optimum_of_rows_on_the_cpu(
    n, dim, n_classes, objective, C, dtype
):
    X, codes, sample_weights = draw(n, dim, n_classes)
    on_cpu = run(X.astype(float), codes, sample_weights, objective, C)
    on_gpu = run(torch.from_numpy(X).to("cuda", dtype), codes, sample_weights, objective, C)
    assert on_gpu.converged.all()
    np.testing.assert_allclose(on_gpu.objective, on_cpu.objective, rtol=1e-10)
    np.testing.assert_allclose(on_gpu.weights, on_cpu.weights, rtol=1e-5, atol=1e-5)
    assert isinstance(on_gpu.weights, np.ndarray)


def test_rows_stay_on_the_gpu_and_little_is_held_beside_them():
    X, codes, sample_weights = draw(20_000, 1_000, 2)
    rows = torch.from_numpy(X).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(rows, codes, sample_weights, "l2", 1.0)
    assert torch.cuda.max_memory_allocated() - before < 0.5 * X.nbytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_probe_takes_rows_labels_and_weights_that_all_lie_on_the_gpu(dtype):
    X, codes, sample_weights = draw(3_000, 200, 3)
    rows, w = torch.from_numpy(X).to("cuda", dtype), torch.from_numpy(sample_weights[:, 1])
    probe = probes.LogisticProbe("l2").fit(
        rows, torch.from_numpy(codes).cuda(), sample_weight=w.cuda()
    )
    on_cpu = rows.cpu().float().numpy()
    same = probes.LogisticProbe("l2").fit(on_cpu, codes, sample_weight=w.numpy())
    np.testing.assert_allclose(probe.coef_, same.coef_, atol=1e-5)
    np.testing.assert_allclose(probe.predict_proba(rows), same.predict_proba(on_cpu), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_rows_on_the_gpu_may_have_squares_that_are_out_of_range(scale):
    X, codes, sample_weights = draw(3_000, 200, 2)
    plain = run(X, codes, sample_weights, "l2", 1.0)
    scaled = torch.from_numpy(X * np.float32(scale)).cuda()
    found = run(scaled, codes, sample_weights, "l2", 1.0 / scale**2)
    assert found.converged.all()
    np.testing.assert_allclose(scale * found.weights, plain.weights, rtol=1e-4, atol=1e-5)
