"""Verbs that look at an image, or at what a store holds: image, list, show."""

import click

from featstore_cli.options import (
    checked_place,
    cutting_options,
    format_options,
    paper_mpp,
    store_argument,
)
from featstore_cli.render import counts_of, emit

COMMANDS = {}
SHOWN_PX = 128  # 32 um at the paper's 0.25 um/px: a cell and what lies around it


@click.command("list")
@store_argument
@format_options
def list_(store, form):
    """List the datasets and embeddings in STORE."""
    import dataclasses

    import pandas as pd

    import featstore

    opened = featstore.open(store)
    listed = opened.list()
    names = [field.name for field in dataclasses.fields(featstore.EmbeddingInfo)]
    embeddings = pd.DataFrame([dataclasses.asdict(row) for row in listed], columns=names)
    if form != "json":
        embeddings["parts"] = embeddings["parts"].map(", ".join)
    if form is None and not any(len(row.parts) > 1 for row in listed):
        del embeddings["parts"]  # one part is all of an embedding
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
    if form is None and opened.cached_datasets():
        infos = [opened.patches(name).info for name in opened.cached_datasets()]
        click.echo()
        emit(pd.DataFrame([_patches_row(info) for info in infos]))


def _patches_row(info):
    return {
        "patches of": info.dataset,
        "rows": info.rows,
        "px": info.patch_px,
        "um/px": "as they are" if info.mpp is None else f"{info.mpp:g}",
        "MiB": f"{info.n_bytes / 2**20:,.1f}",
        "complete": info.complete,
    }


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
@click.option(
    "--model", help="Show where the embeddings of this model, or of MODEL:POOLING, came from."
)
@click.option("--by", default="domain", show_default=True, help="Column to count by.")
@click.option(
    "--patches",
    "sheet",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    help="Draw a contact sheet of patches with their IDs into this PNG or JPEG.",
)
@click.option(
    "--per-group",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Patches of each label and domain on the sheet.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Decides which patches.")
@click.option(
    "--patch-px",
    type=click.IntRange(min=8),
    help=f"Their width [default: {SHOWN_PX}, or what patch files were cut to].",
)
@cutting_options
@format_options
def show(store, dataset, ids, model, by, sheet, form, **drawing):
    """Show DATASET in STORE: counts, the annotations with these IDS, or a model's provenance.

    With --patches, draw what is cut around the annotations: a few of each label and domain, or
    those with these IDS.
    """
    import featstore

    opened = featstore.open(store)
    table = opened.annotations(dataset)
    chosen = _as_in(table, ids)
    if sheet is not None:
        _draw(opened, table, chosen, sheet, **drawing)
    elif model is not None:
        _show_provenance(_provenance(opened.embeddings(model, dataset), model), form)
    elif ids:
        emit(table.take(chosen).to_frame().reset_index(), form)
    else:
        if by != "domain":
            table.column(by)  # refuses one that is not there
        emit(counts_of(table, by=by), form)
        if form is None:
            click.echo(f"\ncolumns: {', '.join(['id', 'label', *table.columns])}")
            _show_sources(opened, dataset)


def _provenance(embeddings, model):
    """How a view was made where one is named, else how all that is stored was."""
    return embeddings.provenance if ":" in model else embeddings.stored_provenance


def _as_in(table, ids):
    """IDs as the table has them, of the words on the command line."""
    return [_integer(text) for text in ids] if table.ids.dtype.kind == "i" else list(ids)


def _draw(opened, table, ids, path, *, per_group, seed, patch_px, mpp, images):
    from featstore.contactsheet import choose, draw_contact_sheet
    from featstore.patches import patches_of

    mpp = mpp or paper_mpp(opened, table.name)
    patch_px = patch_px or _shown_px(opened, table.name, mpp)
    patches = patches_of(opened, table.name, patch_px=patch_px, mpp=mpp, images=images)
    groups = choose(table, ids=ids or None, per_group=per_group, seed=seed)
    title = f"{table.name}: {len(table):,} annotations"
    draw_contact_sheet(patches, groups, title=title).save(path)
    click.echo(f"{sum(len(group.ids) for group in groups)} patches drawn: {path}", err=True)


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
    click.echo(f"images in {folder.root}" if folder else "where its images are is not known")


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


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--compare", is_flag=True, help="Read regions through OpenSlide as well, and compare pixels."
)
@format_options
def image(file, compare, form):
    """Show what is known of the image FILE: size, levels, um per pixel and where that stands."""
    import pandas as pd

    from featstore.images import open_image

    opened = open_image(file)
    rows = [
        (level, page.width_px, page.height_px, page.downsample, _mpp_of(opened, page))
        for level, page in enumerate(opened.levels)
    ]
    columns = ["level", "width_px", "height_px", "downsample", "um_per_px"]
    if form is None:
        stated = f"not known ({opened.mpp_found})"
        stated = stated if opened.mpp is None else f"from {opened.mpp_source}"
        click.echo(f"{file}: read by {opened.reader}; um per pixel {stated}")
    emit(pd.DataFrame(rows, columns=columns), form)
    if compare:
        from featstore.images.vendor import compare_readers

        difference = compare_readers(file)
        click.echo(f"largest difference from what OpenSlide reads, in 16 regions: {difference}")


def _mpp_of(opened, level):
    return float("nan") if opened.mpp is None else opened.mpp * level.downsample


def _shown_px(opened, dataset, mpp):
    """Width to show: whole patch files come out of the cache at the size that they have there."""
    is_cached = mpp is None and dataset in opened.cached_datasets()
    return opened.patches(dataset).patch_px if is_cached else SHOWN_PX


COMMANDS.update({"image": image, "list": list_, "show": show})
