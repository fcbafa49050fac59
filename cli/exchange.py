"""Verbs between a store and other tools' files: export, import."""

from pathlib import Path

import click

from featstore_cli.options import dataset_option, model_option, store_argument

# As featstore.store.exchange has them, which is imported when a verb runs.
LAYOUTS_OUT = ("hdf5", "parquet", "npy")
LAYOUTS_IN = (*LAYOUTS_OUT, "zarr")


@click.command()
@store_argument
@model_option
@dataset_option
@click.option("--to", type=click.Path(), required=True, help="Folder or file to make.")
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS_OUT),
    required=True,
    help="hdf5: a file per slide, as CLAM and TRIDENT; parquet: one file; npy: a folder.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    help="Type in the files [default: float32 for hdf5, else as in the store].",
)
def export(store, model, dataset, to, layout, dtype):
    """Write the embeddings of a model in STORE as files that other tools read.

    IDs, labels, all columns and the provenance go with them; 'featstore import' brings them back.
    """
    import featstore
    from featstore.store.exchange import export_embeddings

    done = export_embeddings(featstore.open(store), model, dataset, to, layout=layout, dtype=dtype)
    n, dim = done.shape
    click.echo(
        f"exported '{model}/{dataset}' to {to}: {n:,} embeddings of {dim}, {done.dtype}, "
        f"{done.n_files} file{'s' if done.n_files > 1 else ''}"
    )
    if done.terms:
        click.echo(f"terms of the encoder, which go with its embeddings: {done.terms}", err=True)


@click.command("import")
@store_argument
@model_option
@dataset_option
@click.option(
    "--from", "path", type=click.Path(exists=True), required=True, help="File or folder to read."
)
@click.option("--layout", type=click.Choice(LAYOUTS_IN), help="[default: guessed from the files]")
@click.option("--ids", help="Name of the annotation IDs in the files.")
@click.option("--values", help="Name of the embeddings in the files.")
@click.option("--label", help="Label of every row [default: the files' own].")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False),
    help="CSV: label, and slide, slide_id or id.",
)
@click.option(
    "--patch-px",
    type=click.FloatRange(min=0, min_open=True),
    help="Side of a patch in level-0 pixels, where HDF5 files do not say.",
)
def import_(store, model, dataset, path, **options):
    """Bring embeddings of another tool, or an export, into STORE.

    The store and the dataset are made where they are not there yet; where the dataset is, its IDs
    must be those of the files.
    """
    import featstore
    from featstore.store.exchange import import_embeddings

    if not Path(store).exists():
        featstore.create(store)
    info = import_embeddings(path, store, dataset=dataset, model=model, **options).info
    click.echo(
        f"imported '{model}/{dataset}' into {store}: {info.rows:,} embeddings of {info.dim}, "
        f"{info.dtype}"
    )


COMMANDS = {"export": export, "import": import_}
