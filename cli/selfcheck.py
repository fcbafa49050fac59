"""The verb selfcheck."""

import importlib
import importlib.util
import math

import click

from featstore_cli.options import (
    device_option,
    format_options,
    precision_option,
    weights_options,
)
from featstore_cli.render import emit

# Both solvers stop at a tolerance of 1e-8 in float64 on a well-conditioned problem; four digits are
# left to how they measure it.
COEFFICIENTS_DIFFER = 1e-4
AUROC_DIFFERS = 1e-3


@click.command()
@click.option("--model", required=True, help="A registered encoder, or timm:NAME.")
@weights_options
@device_option
@precision_option
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option(
    "--compile",
    "compiling",
    type=click.Choice(["on", "off"]),
    default="off",
    show_default=True,
    help="Compile the encoder first.",
)
@format_options
def selfcheck(model, device, precision, batch_size, compiling, form, **build_options):
    """Hold an encoder on this machine's device against itself on the CPU in float32.

    Run it on a new machine before a long job. The exit code is 1 where embeddings are not near
    enough, with what to do. With --csv or --json what is said beside the table goes to stderr.
    """
    from featstore.encoders.build import build, checked_device
    from featstore.selfcheck import selfcheck as run_selfcheck

    chosen = checked_device(_device(device))
    encoder = build(model, **build_options)
    choice = _precision(model, encoder, chosen, precision)
    settings = {"batch_size": batch_size, "compiled": compiling == "on"}
    found = run_selfcheck(encoder, device=str(chosen), precision=choice.precision, **settings)
    for name, value in _facts(encoder, found, choice, chosen).items():
        click.echo(f"{name}: {value}", err=form is not None)
    emit(_table(found), form, rows=_rows(encoder, found, chosen))
    same_solver = _say_cuml(form)
    if not found.ok:
        raise click.ClickException(_failure(found))
    if not same_solver:
        raise click.ClickException(
            "cuML does not fit here what our solver fits; do not compare results of the two"
        )
    click.echo(
        f"passed: in {found.precision} on {found.device}, whatever the batch, embeddings are those "
        f"of float32 on the CPU to a cosine of {found.comparisons[0].allowed:g}",
        err=form is not None,
    )


def _device(name):
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _precision(model, encoder, device, asked):
    """Precision of the forward pass, and why."""
    import copy

    from featstore.encoders.encoder import refused_in_one_line
    from featstore.encoders.precision import (
        PrecisionChoice,
        best_precision,
        recommended_precision,
    )

    if asked != "auto":
        return PrecisionChoice(asked, "asked for")
    recommended = recommended_precision(model)
    with refused_in_one_line(encoder, device, recommended):
        there = copy.deepcopy(encoder).to(device)  # Module.to moves in place
        return best_precision(there, recommended=recommended)


def _facts(encoder, found, choice, device):
    """Say what was run, and where."""
    import torch

    spec = encoder.spec
    return {
        "encoder": f"{spec.key}, weights {spec.weights[:16]}, parts {'+'.join(encoder.parts)}",
        "torch": torch.__version__,
        "device": _named(device),
        "precision": f"{choice.precision} ({choice.reason})",
        "batches": f"of {found.batch_size}, {'compiled' if found.compiled else 'not compiled'}",
        "golden patches": f"SHA-256 {found.patches_sha256[:16]}, {spec.input_px} px",
    }


def _named(device):
    """Name a device, with the versions that its results hang on."""
    import torch

    if device.type == "cuda":
        known = torch.cuda.get_device_properties(device)
        return (
            f"{device}, {known.name}, compute capability {known.major}.{known.minor}, "
            f"{known.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, "
            f"cuDNN {torch.backends.cudnn.version()}"
        )
    if device.type == "cpu":
        instructions = torch.backends.cpu.get_cpu_capability()
        return f"{device}, {instructions}, {torch.get_num_threads()} threads"
    return str(device)


def _table(found):
    """Give a person digits that say something, and cosines rounded down."""
    import pandas as pd

    return pd.DataFrame(
        {
            "against": line.against,
            "part": line.part,
            "least_cosine": _rounded_down(line.least_cosine),
            "allowed": line.allowed,
            "largest_difference": float(f"{line.largest_difference:.2g}"),
            "largest_value": float(f"{line.largest_value:.3g}"),
            "ok": line.ok,
        }
        for line in found.comparisons
    )


def _rounded_down(cosine):
    """Seven digits, never more than it is.

    Examples
    --------
    >>> _rounded_down(0.99999999), _rounded_down(1.0), _rounded_down(float("nan"))
    (0.9999999, 1.0, nan)
    """
    return cosine if math.isnan(cosine) else math.floor(cosine * 1e7) / 1e7


def _rows(encoder, found, device):
    """Give a program all digits, and on each row where it comes from."""
    import dataclasses

    import pandas as pd
    import torch

    run = dataclasses.asdict(found) | {"device": _named(device)}
    del run["comparisons"]
    run |= {"encoder": encoder.spec.key, "weights": encoder.spec.weights}
    lines = [{**dataclasses.asdict(line), "ok": line.ok} for line in found.comparisons]
    return pd.DataFrame(lines).assign(**run, torch=torch.__version__)


def _failure(found):
    """Name the first comparison that failed, and what to do."""
    line = found.first_failure
    if not line.least_cosine >= line.allowed:
        seen = f"a cosine of {_rounded_down(line.least_cosine):.7g}, {line.allowed:g} is needed"
    else:
        seen = (
            f"a difference of {line.largest_difference:.2g} in values of {line.largest_value:.3g}"
        )
    return (
        f"part '{line.part}' in {found.precision} on {found.device} against {line.against}: "
        f"{seen}; {_remedy(found, line)}"
    )


def _remedy(found, line):
    if not math.isfinite(line.largest_value):
        return "what it is held against is not finite either: get the weights again"
    if found.precision != "float32":
        return "use --precision float32"
    if found.compiled:
        return "use --compile off"
    if line.against.startswith("batches"):
        return "this network looks across the patches of a batch: use another"
    if found.device.startswith("cuda"):
        return "set NVIDIA_TF32_OVERRIDE=0 in the environment; else another driver or torch"
    return "use another --device, or another version of torch"


def _say_cuml(form):
    """Say how cuML compares with our solver, where it can run; False where they differ."""
    text, same = _cuml()
    click.echo(f"cuML: {text}", err=form is not None)
    return same


def _cuml():
    import torch

    if importlib.util.find_spec("cuml") is None:
        return "not installed, left out (pip install cuml-cu12, or cuml-cu13)", True
    if not torch.cuda.is_available():
        return "left out, torch finds no CUDA", True
    try:
        linear_model = importlib.import_module("cuml.linear_model")
    except ImportError as error:
        raise click.ClickException(
            f"cuML is installed and cannot be imported ({error}); repair or remove it"
        ) from error
    return beside_our_solver(
        linear_model.LogisticRegression(
            penalty="l2",
            C=1.0,
            tol=1e-8,
            max_iter=1000,
            fit_intercept=True,
            output_type="numpy",  # in place of arrays on the device
        )
    )


def beside_our_solver(estimator):
    """Fit a logistic regression with an estimator and with our solver.

    Parameters
    ----------
    estimator : sklearn-like classifier
        Not fitted; of the ridge penalty at C = 1, in scikit-learn's convention.

    Returns
    -------
    (str, bool)
        How near they are in words, and whether that is near enough.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> beside_our_solver(LogisticRegression(C=1.0, tol=1e-8, max_iter=1000))[1]
    True
    """
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from probes.solvers import solve

    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(512) % 2)
    X = rng.normal(size=(512, 64)) + 0.5 * codes[:, None] * rng.normal(size=64)
    ours = solve(X, codes, np.ones((512, 1)), n_classes=2, objective="l2", C=1.0).weights[0, 0]
    theirs = np.asarray(estimator.fit(X, codes).coef_, np.float64).ravel()
    apart = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
    here, there = (roc_auc_score(codes, X @ weights) for weights in (ours, theirs))
    same = apart <= COEFFICIENTS_DIFFER and abs(here - there) <= AUROC_DIFFERS
    return (
        f"coefficients {apart:.1g} of their length from ours, AUROC {there:.4f}, ours {here:.4f}",
        bool(same),
    )


COMMANDS = {"selfcheck": selfcheck}
