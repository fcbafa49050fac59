"""Checks of what a solver is given: each refuses in one line, before any work is done."""

import operator

import numpy as np

from probes.errors import OneClassError, ProbesError
from probes.solvers.rows import is_tensor

__all__ = [
    "check_features",
    "check_problem",
    "check_rows",
    "check_settings",
    "check_start",
    "in_numpy",
]

OBJECTIVES = ("uni", "l2")
SOLVERS = ("lbfgs", "sklearn", "cuml")

ROWS_AT_ONCE = 8_192  # looked over for values that are not finite

# Values of other sizes are mistakes, and their products would overflow or vanish.
LEAST, LARGEST = 1e-100, 1e100
FLOAT32_RANGE = 1e-30, 1e30


def in_numpy(array):
    """Give numbers as an array on the CPU; what is none is left for a check to refuse."""
    return array.detach().cpu().numpy() if is_tensor(array) else np.asarray(array)


def check_problem(X, codes, sample_weights, n_classes, C):
    """Refuse shapes that do not fit, values out of range, and fits of one class."""
    check_rows(X)
    _check_shapes(X, codes, sample_weights, C)
    _check_strengths(C)
    _check_codes(codes, n_classes)
    _check_weights(sample_weights)
    check_features(X)
    _check_classes(codes, sample_weights, n_classes)


def check_settings(objective, solver, max_iter, tol):
    """Refuse settings that are unknown, or can end no fit."""
    if objective not in OBJECTIVES:
        raise ProbesError(f"objective={objective!r} is unknown; use one of {', '.join(OBJECTIVES)}")
    if solver not in SOLVERS:
        raise ProbesError(f"solver={solver!r} is unknown; use one of {', '.join(SOLVERS)}")
    if not (_is_whole(max_iter) and max_iter >= 0 and _is_number(tol) and 0 < tol < np.inf):
        raise ProbesError(
            f"max_iter={max_iter}, tol={tol} can end no fit; "
            "give a whole max_iter of at least 0 and a finite tol above 0"
        )


def check_rows(X):
    """Refuse what cannot be met as rows of numbers."""
    if X.ndim != 2 or 0 in X.shape:
        raise ProbesError(
            f"X has shape {tuple(X.shape)}; give (n, dim), with a row and a column at least"
        )
    floating = X.is_floating_point() if is_tensor(X) else np.issubdtype(X.dtype, np.floating)
    if not floating:
        raise ProbesError(f"X is {X.dtype}; give an array of floats")
    if is_tensor(X) and ("strided" not in str(X.layout) or X.device.type == "meta"):
        raise ProbesError(
            f"X is a tensor of layout {X.layout} on {X.device}; give a dense one that holds values"
        )
    if is_tensor(X) and X.element_size() < 2:
        raise ProbesError(f"X is {X.dtype}; give floats of 16 bits at least")


def check_features(X):
    """Refuse values that are not finite, and such that their products overflow or vanish."""
    largest, wrong = 0.0, []
    for start in range(0, len(X), ROWS_AT_ONCE):
        block = X[start : start + ROWS_AT_ONCE]
        here = max(-float(block.min()), float(block.max()))
        if np.isfinite(here):
            largest = max(largest, here)
        else:
            wrong.append(start + np.flatnonzero(_not_finite(block)))
    if wrong:
        rows = np.concatenate(wrong)
        raise ProbesError(
            f"X has values that are not finite in {rows.size} of {len(X)} rows, the first is "
            f"row {rows[0]}; drop these rows or embed them again"
        )
    least, most = (LEAST, LARGEST) if "float64" in str(X.dtype) else FLOAT32_RANGE
    if largest > 0 and not least <= largest <= most:
        raise ProbesError(
            f"the largest value of X is {largest:g}, which no embedding has; scale X so that it "
            f"lies between {least:g} and {most:g}"
        )


def check_start(start, n_fits, n_rows, dim):
    """Refuse a start of another shape, or one that is not finite."""
    if start is None:
        return None
    expected = [(n_fits, n_rows, dim), (n_fits, n_rows)]
    parts = [in_numpy(part) for part in start] if isinstance(start, tuple | list) else []
    shapes = [part.shape for part in parts]
    if shapes != expected:
        found = f"has shapes {shapes}" if parts else f"is a {type(start).__name__}"
        raise ProbesError(f"start {found}; give weights and intercepts of shapes {expected}")
    if not all(part.dtype.kind in "iuf" and _within(part, LARGEST) for part in parts):
        raise ProbesError(
            f"start is not finite, or beyond {LARGEST:g}; give a solution that is near"
        )
    return tuple(parts)


def _within(array, most):
    return bool((np.abs(array) <= most).all())  # NaN is not


def _is_whole(value):
    try:
        return operator.index(value) is not None
    except TypeError:
        return False


def _is_number(value):
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"


def _check_shapes(X, codes, sample_weights, C):
    if codes.shape != tuple(X.shape[:1]):
        raise ProbesError(f"codes has shape {codes.shape}; X has {len(X)} rows, give one code each")
    if sample_weights.ndim != 2 or sample_weights.shape[0] != len(X) or not sample_weights.size:
        raise ProbesError(
            f"sample_weights has shape {sample_weights.shape}; X has {len(X)} rows, "
            f"give ({len(X)}, fits), with a fit at least"
        )
    if C.shape not in [(), sample_weights.shape[1:]]:
        raise ProbesError(
            f"C has shape {C.shape}; give one number, or one for each of the "
            f"{sample_weights.shape[1]} fits"
        )


def _check_strengths(C):
    if C.dtype.kind not in "biuf":
        raise ProbesError(f"C is of type {C.dtype}; give numbers")
    if not ((C > 0) & np.isfinite(C)).all():
        raise ProbesError(f"C={np.min(C):g} is no inverse strength; give a finite C above 0")
    if C.min() < LEAST or C.max() > LARGEST:
        raise ProbesError(
            f"C reaches from {C.min():g} to {C.max():g}; give values from {LEAST:g} to {LARGEST:g}"
        )


def _check_codes(codes, n_classes):
    if not _is_whole(n_classes):
        raise ProbesError(f"n_classes={n_classes!r} is no number of classes; give a whole number")
    if n_classes < 2:
        raise ProbesError(f"n_classes={n_classes} leaves nothing to tell apart; give at least 2")
    if not np.issubdtype(codes.dtype, np.integer):
        raise ProbesError(f"codes are {codes.dtype}; give integers from 0 to {n_classes - 1}")
    if codes.min() < 0 or codes.max() >= n_classes:
        raise ProbesError(
            f"codes run from {codes.min()} to {codes.max()}; n_classes={n_classes} "
            f"asks for 0 to {n_classes - 1}"
        )


def _check_weights(sample_weights):
    if sample_weights.dtype.kind not in "biuf":
        raise ProbesError(f"sample_weights are {sample_weights.dtype}; give numbers")
    if not np.isfinite(sample_weights).all() or (sample_weights < 0).any():
        raise ProbesError(
            f"sample_weights reach {np.min(sample_weights):g}; give finite weights of at least 0"
        )
    above = sample_weights > 0
    empty = np.flatnonzero(~above.any(axis=0))
    if empty.size:
        raise ProbesError(
            f"sample_weights of fit {empty[0]} are all 0; give every fit a row at least"
        )
    largest = sample_weights.max()
    least, largest = float(sample_weights.min(where=above, initial=largest)), float(largest)
    if least < LEAST or largest > LARGEST:
        raise ProbesError(
            f"sample_weights above 0 reach from {least:g} to {largest:g}; "
            f"give 0, or weights from {LEAST:g} to {LARGEST:g}"
        )


def _not_finite(block):
    """Which rows of a block hold a value that is not finite; only the answer leaves a device."""
    if is_tensor(block):
        return ~block.isfinite().all(dim=1).cpu().numpy()
    return ~np.isfinite(block).all(axis=1)


def _check_classes(codes, sample_weights, n_classes):
    """Refuse fits of one class; codes are already known to be in range."""
    present = np.array([(sample_weights[codes == k] > 0).any(axis=0) for k in range(n_classes)])
    alone = np.flatnonzero(present.sum(axis=0) < 2)
    if alone.size:
        raise OneClassError(
            f"fit {alone[0]} has rows of class {np.argmax(present[:, alone[0]])} only, of "
            f"{n_classes} classes; give it more rows, or draw another split"
        )
