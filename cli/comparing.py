"""The verb diff."""

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

    HERE and THERE are STORE:MODEL/DATASET, for instance lab.zarr:uni/midog2022.
    """
    import pandas as pd

    from featstore.store.compare import compare

    result = compare(_embeddings(here), _embeddings(there))
    rows = [(field, *map(str, pair)) for field, pair in result.fields.items()]
    rows += [("common annotations", str(result.n_common), str(result.n_common))]
    rows += [("annotations of one only", str(result.n_only_here), str(result.n_only_there))]
    emit(pd.DataFrame(rows, columns=["field", "here", "there"]), form)
    if form is None and result.cosines is not None:
        _show_drift(result)


def _embeddings(place):
    import featstore

    store, _, name = place.rpartition(":")
    model, _, dataset = name.partition("/")
    if not (store and model and dataset):
        raise click.UsageError(f"{place!r} is not STORE:MODEL/DATASET")
    return featstore.open(store).embeddings(model, dataset)


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
