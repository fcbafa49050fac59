"""Verbs over datasets: add, list, show."""

import hashlib
from pathlib import Path

import click

from featstore_cli.options import format_options, store_argument
from featstore_cli.render import emit

COMMANDS = {}


@click.command()
@store_argument
@click.argument("dataset")
@click.option("--annotations", type=click.Path(), help="MIDOG-format JSON.")
@click.option("--patches", type=click.Path(), help="CSV of patch files that are already cropped.")
@click.option(
    "--images", type=click.Path(), help="Folder of the images [default: with --patches, the CSV's]."
)
@click.option("--id", default="id", show_default=True, help="Column of the CSV.")
@click.option("--file", "file", default="file", show_default=True, help="Column of the CSV.")
@click.option("--label", default="label", show_default=True, help="Column of the CSV.")
@click.option("--slide", help="Column of the CSV [default: slide, where there is one].")
@click.option("--domain", help="Column of the CSV [default: domain, where there is one].")
@click.option(
    "--mpp",
    type=click.FloatRange(min=0, min_open=True),
    help="Um per pixel of the images [default: what each file says].",
)
@click.option(
    "--outside",
    type=click.Choice(["error", "drop", "keep"]),
    default="error",
    show_default=True,
    help="What to do with annotations outside their image.",
)
@click.option("--extend", is_flag=True, help="Add the rows that a dataset does not have yet.")
def add(store, dataset, annotations, patches, images, mpp, outside, extend, **columns):
    """Add annotated cells, and where their images are, to STORE under the name DATASET.

    Either --annotations, a MIDOG-format JSON with TIFF images, or --patches, a CSV with one cropped
    patch file per row. The store is made where it is not there yet. With --extend, annotations with
    new IDs go to the end of a dataset that is there, and those with known IDs must agree with it.
    """
    from featstore.store.layout import check_key

    if (annotations is None) == (patches is None):
        raise click.UsageError("give either --annotations FILE or --patches FILE")
    check_key("dataset", dataset)
    table = _read(dataset, annotations, patches, images, columns)
    folder = _image_folder(images, patches)
    if folder is not None:
        from featstore.patches import check_against_images

        table = check_against_images(table, folder, mpp=mpp, outside=outside)
    write = _extend if extend else _add
    n_before = write(store, table, folder, _source(patches or annotations))
    click.echo(f"added {dataset!r} to {store}: {len(table) - n_before:,} annotations")
    emit(_counts(table))


def _read(dataset, annotations, patches, images, columns):
    from featstore.datasets.midog import read_midog
    from featstore.datasets.table import read_patch_table

    if patches is None:
        return read_midog(annotations, name=dataset)
    return read_patch_table(patches, name=dataset, images=images, **columns)


def _image_folder(images, patches):
    from featstore.images import ImageFolder

    if images is None and patches is None:
        return None
    return ImageFolder(str(images or Path(patches).parent), whole=patches is not None)


def _source(path):
    """Name and SHA-256 of the file that annotations were read from."""
    content = Path(path).read_bytes()
    return {"file": Path(path).name, "sha256": hashlib.sha256(content).hexdigest()}


def _add(store, table, folder, source):
    """Write a new dataset; return the number of annotations it had before."""
    import featstore
    from featstore.store.writer import add_annotations, check_addable

    check_addable(table)
    if "://" not in str(store) and not (Path(store).exists() and _holds_something(store)):
        featstore.create(store)
    add_annotations(store, table, folder=folder, source=source)
    return 0


def _holds_something(store):
    """Whether a place holds anything: a file does, an empty folder does not."""
    return not Path(store).is_dir() or any(Path(store).iterdir())


def _extend(store, table, folder, source):
    """Write the new rows of a dataset; return the number of the table's rows it had before."""
    import featstore
    from featstore.store.writer import extend_annotations

    there = featstore.open(store).annotations(table.name)
    longer = there.extended(table)
    extend_annotations(store, longer, source=source)
    return len(table) - (len(longer) - len(there))


def _counts(table):
    """Annotations by domain (where known) and label, with the number of slides."""
    import pandas as pd

    frame = table.to_frame()
    if "domain" not in frame:
        frame["domain"] = "all"
    counts = pd.crosstab(frame["domain"], frame["label"])
    if "slide" in frame:
        counts["slides"] = frame.groupby("domain")["slide"].nunique()
    return counts.reset_index()


@click.command("list")
@store_argument
@format_options
def list_(store, form):
    """List the datasets and embeddings in STORE."""
    import dataclasses

    import pandas as pd

    import featstore

    opened = featstore.open(store)
    names = ["model", "dataset", "rows", "dim", "dtype", "complete"]
    embeddings = pd.DataFrame([dataclasses.asdict(row) for row in opened.list()], columns=names)
    if form is None:
        tables = [opened.annotations(name) for name in opened.datasets()]
        emit(
            pd.DataFrame(
                [_dataset_row(table) for table in tables],
                columns=["dataset", "annotations", "labels", "slides", "domains"],
            )
        )
        click.echo()
    emit(embeddings, form)


def _dataset_row(table):
    labels = sorted(set(table.labels.tolist()))
    slides, domains = (
        len(set(table.column(name).tolist())) if name in table.columns else "-"
        for name in ("slide", "domain")
    )
    return table.name, len(table), ", ".join(labels), slides, domains


@click.command()
@store_argument
@click.argument("dataset")
@click.argument("ids", nargs=-1)
@click.option("--model", help="Show where the embeddings of this model came from.")
@format_options
def show(store, dataset, ids, model, form):
    """Show DATASET in STORE: counts, the annotations with these IDS, or a model's provenance."""
    import featstore

    opened = featstore.open(store)
    table = opened.annotations(dataset)
    if model is not None:
        _show_provenance(opened.embeddings(model, dataset).provenance, form)
    elif ids:
        chosen = [_integer(text) for text in ids] if table.ids.dtype.kind == "i" else list(ids)
        emit(table.take(chosen).to_frame().reset_index(), form)
    else:
        emit(_counts(table), form)
        if form is None:
            click.echo(f"\ncolumns: {', '.join(['id', 'label', *table.columns])}")
            _show_sources(opened, dataset)


def _integer(text):
    try:
        return int(text)
    except ValueError as error:
        raise click.ClickException(
            f"ID {text!r} is not an integer, as this dataset's are"
        ) from error


def _show_sources(opened, dataset):
    source, folder = opened.source(dataset), opened.image_folder(dataset)
    click.echo(f"read from {source.get('file', '?')} (sha256 {source.get('sha256', '?')[:16]}...)")
    click.echo(f"images in {folder.root}" if folder else "added without images")


def _show_provenance(provenance, form):
    import pandas as pd

    rows = [
        (f"{group}.{key}", value)
        for group, values in provenance.to_json().items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    ]
    frame = pd.DataFrame(rows, columns=["field", "value"]).astype(str)
    frame["field"] = frame["field"].str.rstrip(".")
    emit(frame, form)


COMMANDS.update({"add": add, "list": list_, "show": show})
