"""The verb encoders."""

import click

from featstore_cli.options import format_options
from featstore_cli.render import emit


@click.command()
@click.argument("key", required=False)
@format_options
def encoders(key, form):
    """List the encoders known by name, or show all that is known of the encoder KEY.

    The last column says whether the weights are on this machine; nothing asks a hub.
    """
    import pandas as pd

    from featstore.encoders.registry import ENCODERS, registered

    if key is None:
        emit(pd.DataFrame([_line(row) for row in ENCODERS.values()]), form)
        return
    emit(pd.DataFrame(_facts(registered(key)), columns=["field", "value"]), form)


def _line(row):
    return {
        "encoder": row.key,
        "dim": row.spec.dim,
        "parameters_M": round(row.n_parameters / 1e6, 1),
        "um_per_px": "-" if row.mpp is None else f"{row.mpp:g}",
        "pooling": row.spec.pooling,
        "precision": row.precision,
        "terms": row.spec.terms,
        "weights": _here(row),
    }


def _here(row):
    from featstore.encoders.weights import find_weights

    found = find_weights(row)
    if found is not None:
        return f"here ({found[1]})"
    return {"open": "to get", "login": "to get after login", "gated": "to ask for"}[row.access]


def _facts(row):
    """All fields of the registry, as pairs of texts."""
    facts = {**row.spec.to_json(), "recommended_mpp": row.mpp, "weights_here": _here(row)}
    names = ("hub", "revision", "file", "sha256", "precision", "access")
    facts |= {name: getattr(row, name) for name in names}
    facts |= {name: getattr(row, name) for name in ("n_parameters", "n_tokens", "n_prefix_tokens")}
    del facts["mpp"], facts["weights"]  # of a run, not of the encoder
    return [(name, str(value)) for name, value in facts.items() if value != ""]


COMMANDS = {"encoders": encoders}
