"""The verb diff."""

import re
from pathlib import Path

import click

from featstore_cli.options import format_options
from featstore_cli.render import emit

WORST_SHOWN = 5


@click.command()
@click.argument("here")
@click.argument("there")
@format_options
def diff(here, there, form):
    """Show what differs between two arrays of embeddings, and how far they drifted.

    HERE and THERE are STORE:MODEL/DATASET, for instance lab.zarr:uni/midog2022, for every part
    that is stored; or STORE:MODEL:POOLING/DATASET for some of them: lab.zarr:uni:mean/midog2022.
    """
    import pandas as pd

    from featstore.store.compare import compare

    ours, theirs = _embeddings(here), _embeddings(there)
    result = compare(ours, theirs)
    rows = [(field, *map(str, pair)) for field, pair in result.fields.items()]
    rows += _default_views(ours, theirs)
    rows += [("common annotations", str(result.n_common), str(result.n_common))]
    rows += [("annotations of one only", str(result.n_only_here), str(result.n_only_there))]
    emit(pd.DataFrame(rows, columns=["field", "here", "there"]), form)
    if result.cosines is None:
        _say_what_can_be_compared(ours, theirs)
    elif form is None:
        _show_drift(result)


def _embeddings(place):
    """Embeddings at a place: the view that is named, else all that is stored."""
    import featstore

    store, model, dataset = _split(place)
    if not (store and model and dataset):
        raise click.UsageError(f"{place!r} is not STORE:MODEL/DATASET")
    embeddings = featstore.open(store).embeddings(model, dataset)
    return embeddings if ":" in model else embeddings.whole


def _split(place):
    """Store, model and dataset of a place; a store's own path may hold ':' too.

    Examples
    --------
    >>> _split("lab.zarr:uni/midog"), _split("https://h:80/lab.zarr:uni:class+mean/midog")
    (('lab.zarr', 'uni', 'midog'), ('https://h:80/lab.zarr', 'uni:class+mean', 'midog'))
    """
    named, _, dataset = place.rpartition("/")
    store, _, model = named.rpartition(":")
    shorter, _, key = store.rpartition(":")
    if shorter and re.fullmatch("[a-z0-9][a-z0-9._-]*", key) and not Path(store).exists():
        return shorter, f"{key}:{model}", dataset
    return store, model, dataset


def _default_views(ours, theirs):
    """Say where two that hold the same show another part of it by default."""
    poolings = [each.stored_provenance.spec.pooling for each in (ours, theirs)]
    shown = [each.provenance.spec.pooling for each in (ours, theirs)]
    only_by_default = poolings[0] != poolings[1] and shown[0] == shown[1]
    return [("default view", *poolings)] if only_by_default else []


def _say_what_can_be_compared(ours, theirs):
    """Say, where two are of different lengths, which part could be asked for of both."""
    advice = next((name for name in ours.parts if name in theirs.parts), None)
    click.echo(
        f"embeddings of {ours.shape[1]} and of {theirs.shape[1]} were not compared row by row"
        + (f"; both hold {advice}: name it as in STORE:MODEL:{advice}/DATASET" if advice else ""),
        err=True,
    )


def _show_drift(result):
    import numpy as np
    import pandas as pd

    click.echo(
        f"\ncosine: lowest {result.cosines[0]:.6f}, mean {np.nanmean(result.cosines):.6f}; largest "
        f"difference of an entry {result.largest_differences.max():.3g}. Lowest cosines:"
    )
    worst = slice(0, WORST_SHOWN)
    emit(
        pd.DataFrame(
            {
                "id": result.ids[worst],
                "cosine": [f"{value:.6f}" for value in result.cosines[worst]],
                "largest_difference": result.largest_differences[worst],
            }
        )
    )


COMMANDS = {"diff": diff}
