"""Slow minimisers in float64 that share nothing with the solver: what it is held to.

The objective is written as protocol.md has it, softmax also for two classes, over W (K, dim) and b
(K,). L-BFGS of SciPy comes near, Newton steps on the whole Hessian end there.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.linear_model import LogisticRegression


def l2_optimum(X, codes, sample_weights, C):
    """Fit scikit-learn by its exact solver, to the last digit."""
    model = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    return model.fit(X, codes, sample_weight=sample_weights)


def uni_value(W, b, X, codes, w, C):
    """Mean cross-entropy + 0.5 / C * norm(W), the Frobenius norm not squared."""
    scores = X @ W.T + b
    entropies = logsumexp(scores, axis=1) - scores[np.arange(len(X)), codes]
    return w @ entropies / w.sum() + 0.5 * np.sqrt((W**2).sum()) / C


def uni_gradient(W, b, X, codes, w, C):
    """Its gradients in W and b."""
    residuals = softmax(X @ W.T + b, axis=1) - np.eye(len(W))[codes]
    residuals *= (w / w.sum())[:, None]
    return residuals.T @ X + 0.5 * W / np.sqrt((W**2).sum()) / C, residuals.sum(axis=0)


def uni_hessian(W, X, w, C, b):
    """Its Hessian, (K * (dim + 1), K * (dim + 1)), the intercept last in each class."""
    K, dim = W.shape
    P, rows = softmax(X @ W.T + b, axis=1), np.hstack([X, np.ones((len(X), 1))])
    H = np.empty((K, dim + 1, K, dim + 1))
    for i in range(K):
        for j in range(K):
            curvature = w / w.sum() * P[:, i] * ((i == j) - P[:, j])
            H[i, :, j] = (rows * curvature[:, None]).T @ rows
    norm = np.linalg.norm(W)
    pull = (np.eye(K * dim) - np.outer(W, W) / norm**2) * 0.5 / C / norm
    H[:, :dim, :, :dim] += pull.reshape(K, dim, K, dim)
    return H.reshape(K * (dim + 1), -1)


def uni_optimum(X, codes, w, C, n_classes, max_newton=50):
    """W and b at the least value, where no entry of the gradient is above 1e-12.

    The whole Hessian is stored: for up to some 1,000 weights.
    """
    dim = X.shape[1]

    def parts(flat):
        points = flat.reshape(n_classes, dim + 1)
        return points[:, :-1], points[:, -1]

    def value(flat):
        return uni_value(*parts(flat), X, codes, w, C)

    def gradient(flat):
        in_W, in_b = uni_gradient(*parts(flat), X, codes, w, C)
        return np.hstack([in_W, in_b[:, None]]).ravel()

    start = 1e-2 * np.random.default_rng(0).standard_normal(n_classes * (dim + 1))
    found = minimize(value, start, jac=gradient, method="L-BFGS-B", options={"maxiter": 500}).x
    for _ in range(max_newton):
        slopes = gradient(found)
        if np.abs(slopes).max() < 1e-12:
            return parts(found)
        W, b = parts(found)
        # a common change of all classes has no curvature in b: the least-norm step leaves it alone
        step = -np.linalg.lstsq(uni_hessian(W, X, w, C, b), slopes, rcond=1e-14)[0]
        length = 1.0
        while value(found + length * step) > value(found) + 1e-16 and length > 1e-6:
            length /= 2
        found = found + length * step
    raise AssertionError(f"the reference stopped at a gradient of {np.abs(slopes).max():.1e}")
