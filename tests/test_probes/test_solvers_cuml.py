"""How we call cuML, held against cuML's source and against what its source says it computes.

No GPU is needed. The source is that of cuML where it is installed, or of a wheel that
FEATSTORE_CUML_WHEEL names ('pip download --no-deps cuml-cu12').
"""

import ast
import importlib.util
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes.errors import MissingExtraError
from probes.solvers import cuml, onebyone, solve
from tests.test_probes.test_solvers_sklearn import Cs, draw

# Of cuml/linear_model/logistic_regression.py in the wheel cuml_cu12-26.10.0.
PARAMETERS_OF_26_10 = {
    "penalty": "l2",
    "tol": 1e-4,
    "C": 1.0,
    "fit_intercept": True,
    "class_weight": None,
    "max_iter": 1000,
    "linesearch_max_iter": 50,
    "l1_ratio": None,
    "solver": "qn",
    "lbfgs_memory": 5,
    "penalty_normalized": True,
    "verbose": False,
    "output_type": None,
}


@pytest.fixture
def cuml_source():
    """Read files of cuML by their path, without importing it."""
    spec = importlib.util.find_spec("cuml")
    wheel = os.environ.get("FEATSTORE_CUML_WHEEL")
    if spec is not None:
        home = Path(spec.origin).parent
        return lambda name: (home / name).read_text()
    if not wheel:
        pytest.skip("cuML is not installed, and FEATSTORE_CUML_WHEEL names no wheel of it")

    def read(name):
        with zipfile.ZipFile(wheel) as file:
            return file.read(f"cuml/{name}").decode()

    return read


def methods(source):
    """Functions of the class LogisticRegression, by name."""
    (owner,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "LogisticRegression"
    )
    return {node.name: node for node in owner.body if isinstance(node, ast.FunctionDef)}


def test_cuml_has_every_parameter_that_we_give_it(cuml_source):
    found = methods(cuml_source("linear_model/logistic_regression.py"))
    known = {argument.arg for argument in found["__init__"].args.kwonlyargs}
    assert set(cuml.arguments(1.0, max_iter=10, tol=1e-8)) <= known
    assert [argument.arg for argument in found["fit"].args.args] == [
        "self",
        "X",
        "y",
        "sample_weight",
    ]


def test_the_stand_in_has_the_parameters_and_defaults_of_cuml(cuml_source):
    init = methods(cuml_source("linear_model/logistic_regression.py"))["__init__"].args
    found = {
        argument.arg: ast.literal_eval(default)
        for argument, default in zip(init.kwonlyargs, init.kw_defaults, strict=True)
    }
    assert found == PARAMETERS_OF_26_10


def test_cuml_still_takes_strengths_and_stops_as_we_read_it(cuml_source):
    fit = cuml_source("linear_model/logistic_regression.py")
    assert "l2_strength = 1.0 / self.C" in fit
    assert "penalty_normalized=self.penalty_normalized" in fit
    solver = cuml_source("solvers/qn.pyx")
    assert "params.grad_tol = tol" in solver
    assert "params.change_tol = delta if delta is not None else tol * 0.01" in solver
    assert "intercept = coef[-1]" in solver


class StandIn:
    """What cuML's source says it computes, by scikit-learn, with cuML's own parameters.

    The weighted loss is divided by the sum of the weights, its gradient by the number of rows
    (cpp/src/glm/qn/glm_base.cuh): where these differ, cuML minimises nothing in particular.
    """

    def __init__(self, **parameters):
        assert set(parameters) <= set(PARAMETERS_OF_26_10)
        self.parameters = PARAMETERS_OF_26_10 | parameters

    def fit(self, X, y, sample_weight=None):
        assert self.parameters["penalty"] == "l2"
        assert self.parameters["output_type"] == "numpy"
        assert sample_weight.sum() == pytest.approx(len(X))
        strength = 1 / self.parameters["C"]
        if self.parameters["penalty_normalized"]:
            strength /= len(X)
        model = LogisticRegression(
            C=1 / (strength * sample_weight.sum()),
            solver="newton-cholesky",
            tol=self.parameters["tol"],
            max_iter=self.parameters["max_iter"],
        )
        model.fit(X, y, sample_weight=sample_weight)
        self.coef_, self.intercept_ = model.coef_, model.intercept_
        self.n_iter_ = np.asarray([model.n_iter_.max()])
        return self


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # 1e-12 is not reached
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("objective", ["uni", "l2"])
def test_the_call_asks_for_the_optimum_that_our_solver_finds(objective, n_classes):
    X, codes, weights = draw(n_classes=n_classes)
    settings = {"n_classes": n_classes, "objective": objective, "C": Cs[objective]}
    ours = solve(X, codes, weights, **settings)
    theirs = onebyone.solve(
        X,
        codes,
        weights,
        max_iter=1000,
        tol=1e-8,
        ridge=cuml._ridge_of(StandIn, np),
        **settings,
    )
    np.testing.assert_allclose(theirs.objective, ours.objective, rtol=1e-10)
    np.testing.assert_allclose(theirs.weights, ours.weights, rtol=1e-5, atol=1e-6)


class Early(StandIn):
    """A solver that stops at once, and does not say so; a line search that fails does that."""

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.coef_ = 0.5 * self.coef_
        self.n_iter_ = np.asarray([3])
        return self


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_that_ended_early_without_a_word_is_not_called_converged():
    X, codes, weights = draw()
    settings = {"n_classes": 2, "objective": "l2", "C": 1.0, "max_iter": 1000, "tol": 1e-8}
    found = onebyone.solve(X, codes, weights, ridge=cuml._ridge_of(Early, np), **settings)
    assert not found.converged.any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_asked_for_without_cuda_it_says_so_in_one_line():
    X, codes, weights = draw()
    with pytest.raises(MissingExtraError) as raised:
        solve(X, codes, weights, n_classes=2, C=1.0, solver="cuml")
    said = str(raised.value)
    assert said.startswith(
        "solver='cuml' needs cuML on a CUDA machine: pip install 'featstore-probes[gpu]'. "
        "Use solver='lbfgs' on a CPU"
    )
    assert "\n" not in said
    assert isinstance(raised.value, ImportError)
