"""Verbs that hand a store on: copy, pack."""

import click

from featstore_cli.options import store_argument
from featstore_cli.render import emit

COMMANDS = {}

models_option = click.option(
    "--model",
    "models",
    multiple=True,
    help="Model to take, with all of its parts [default: all]; may be repeated.",
)
datasets_option = click.option(
    "--dataset", "datasets", multiple=True, help="Dataset to take [default: all]; may be repeated."
)
patches_option = click.option(
    "--patches", is_flag=True, help="Take the cached patches of the datasets along."
)


@click.command()
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@models_option
@datasets_option
@patches_option
@click.option("--manifest", is_flag=True, help="Write the SHA-256 of every file into TARGET.")
def copy(source, target, models, datasets, patches, manifest):
    """Copy datasets and embeddings of SOURCE into TARGET, or merge them with what it holds.

    The same command goes on after an interruption. Annotations that differ between the two stores
    are reported and nothing is changed.
    """
    import featstore
    from featstore.store.transfer import copy as copy_store

    copied = copy_store(
        featstore.open(source),
        target,
        models=models or None,
        datasets=datasets or None,
        patches=patches,
        manifest=manifest,
    )
    _show_notes(copied.notes)
    emit(_parts(copied))


@click.command()
@store_argument
@click.argument("out", type=click.Path())
@models_option
@datasets_option
@patches_option
def pack(store, out, models, datasets, patches):
    """Write datasets and embeddings of STORE into the single file OUT, which ends in .zip.

    The file opens without being unpacked, and holds a manifest for 'sha256sum -c'.
    """
    from featstore.store.archive import pack as pack_store

    packed = pack_store(
        store, out, models=models or None, datasets=datasets or None, patches=patches
    )
    _show_notes(packed.notes)
    click.echo(
        f"packed {store} into {packed.path}: {packed.n_files} files, {packed.n_bytes:,} bytes"
    )


def _show_notes(notes):
    for note in notes:
        click.echo(f"Note: {note}", err=True)


def _parts(copied):
    import pandas as pd

    rows = [(part.name, part.copied, part.equal, part.n_bytes) for part in copied.parts]
    return pd.DataFrame(rows, columns=["part", "chunks_copied", "chunks_equal", "bytes"])


COMMANDS.update({"copy": copy, "pack": pack})
