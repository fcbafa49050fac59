"""The verb add."""

import hashlib
from collections import Counter
from pathlib import Path

import click

from featstore_cli.options import UmPerPixel, store_argument
from featstore_cli.render import counts_of, emit


def as_label_map(ctx, param, texts):
    """Parse 'Mitose=mitotic figure', given any number of times, into a mapping; None for none."""
    labels = {}
    for text in texts:
        name, equals, label = text.partition("=")
        if not (name.strip() and equals and label.strip()) or name in labels:
            raise click.BadParameter(
                f"{text!r} is not NAME=LABEL, such as 'Mitose=mitotic figure', once for each name"
            )
        labels[name] = label
    return labels or None


@click.command()
@store_argument
@click.argument("dataset")
@click.option(
    "--annotations",
    type=click.Path(),
    help="MIDOG JSON, SlideRunner database, CSV or Parquet of centres, GeoJSON or a folder of it.",
)
@click.option(
    "--patches", type=click.Path(), help="CSV or Parquet of patch files that are already cropped."
)
@click.option(
    "--images",
    type=click.Path(),
    help="Folder of the images [default: with --patches, the table's].",
)
@click.option(
    "--format",
    help="midog, sliderunner, table or geojson [default: what the annotation file shows].",
)
@click.option(
    "--release",
    help="The file is (part of) midog2021, midog2022, midog++ or ccmct [default: what is certain].",
)
@click.option(
    "--map-label",
    "labels",
    multiple=True,
    metavar="NAME=LABEL",
    callback=as_label_map,
    help="Label of a class of the file; may be given several times.",
)
@click.option(
    "--box-px",
    type=click.FloatRange(min=0),
    help="Width and height that MIDOG's boxes must have; 0 takes any [default: 50].",
)
@click.option("--image", help="Image file that a GeoJSON file is of [default: found by its name].")
@click.option("--id", help="Column of a table [default: id].")
@click.option(
    "--file",
    help="Column of a table: the patch file or image [default: file; for centres image or file].",
)
@click.option("--label", help="Column of a table [default: label].")
@click.option("--x", help="Column of a table of centres, in px [default: x].")
@click.option("--y", help="Column of a table of centres, in px, downwards [default: y].")
@click.option("--slide", help="Column of a table [default: slide, where there is one].")
@click.option("--domain", help="Column of a table [default: domain, where there is one].")
@click.option(
    "--mpp",
    type=UmPerPixel(),
    help="Um per pixel of the images [default: what each file says].",
)
@click.option(
    "--outside",
    type=click.Choice(["error", "drop", "keep"]),
    default="error",
    show_default=True,
    help="What to do with annotations outside their image.",
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out, and list, images that are missing or damaged; looks at their pixels too.",
)
@click.option("--extend", is_flag=True, help="Add the rows that a dataset does not have yet.")
def add(store, dataset, annotations, patches, images, mpp, outside, skip_bad, extend, **options):
    """Add annotated cells, and where their images are, to STORE under the name DATASET.

    Either --annotations, a file of cells in larger images, or --patches, a table with one cropped
    patch file per row. What the file holds and is not added is counted, with the reason. The store
    is made where it is not there yet. With --extend, annotations with new IDs go to the end of a
    dataset that is there, and those with known IDs must agree with it.
    """
    from featstore.store.layout import check_key

    if (annotations is None) == (patches is None):
        raise click.UsageError("give either --annotations FILE or --patches FILE")
    check_key("dataset", dataset)
    reading = _read(dataset, annotations, patches, images, options)
    folder = _image_folder(images, patches)
    if folder is not None:
        reading = _checked(reading, folder, skip_bad=skip_bad, mpp=mpp, outside=outside)
    table = reading.table
    write = _extend if extend else _add
    n_before = write(store, table, folder, _source(patches or annotations, reading))
    click.echo(f"added {dataset!r} to {store}: {len(table) - n_before:,} annotations")
    emit(counts_of(table, images=patches is None))
    for line in reading.lines():
        click.echo(line)


def _read(dataset, annotations, patches, images, options):
    """Read annotations with those options that were given."""
    from featstore.datasets.formats import options_of, read_annotations
    from featstore.datasets.table import read_patch_table

    given = {key: value for key, value in options.items() if value is not None}
    if given.get("box_px") == 0:
        given["box_px"] = None  # any size
    if patches is None:
        return read_annotations(annotations, name=dataset, images=images, **given)
    lost = [key for key in given if key not in options_of(read_patch_table)]
    if lost:
        raise click.UsageError(f"--{lost[0].replace('_', '-')} goes with --annotations alone")
    return read_patch_table(patches, name=dataset, images=images, **given)


def _checked(reading, folder, *, skip_bad, **how):
    """Hold what was read against its images; what has to go is counted, with the reason."""
    import dataclasses

    from featstore.datasets.reading import LeftOut
    from featstore.survey import check_against_images

    bad, resolutions = {}, Counter()
    on_bad = (lambda image, n, error: bad.update({image: (n, error)})) if skip_bad else None
    table = check_against_images(
        reading.table,
        folder,
        on_bad=on_bad,
        on_image=lambda image: resolutions.update([(image.mpp, image.mpp_source)]),
        **how,
    )
    kept = set(table.ids.tolist())
    images = zip(reading.table.ids.tolist(), reading.table.images.tolist(), strict=True)
    outside = [key for key, image in images if key not in kept and image not in bad]
    lost = [LeftOut(f"of the bad image {image}", n) for image, (n, _) in bad.items()]
    if outside:
        lost.append(LeftOut("whose centre is outside of its image", len(outside), first=outside))
    return dataclasses.replace(
        reading,
        table=table,
        left_out=(*reading.left_out, *lost),
        notes=(
            *reading.notes,
            *(str(error) for _, error in bad.values()),
            *([] if folder.whole or how["mpp"] is not None else _resolution_notes(resolutions)),
        ),
    )


def _resolution_notes(resolutions):
    """Say which um per pixel were found and where, and which slip could stand behind odd ones."""
    from featstore.images.resolution import doubt

    known = [(mpp, source, n) for (mpp, source), n in resolutions.items() if mpp is not None]
    for mpp, source, n in sorted(known):
        images = f"{n:,} image{'s' * (n != 1)}"
        question = f"; {doubt(mpp)}, which --mpp would say" if doubt(mpp) else ""
        yield f"{mpp:.4g} um/px in {images}, from {source}{question}"


def _image_folder(images, patches):
    from featstore.images import ImageFolder

    if images is None and patches is None:
        return None
    return ImageFolder(str(images or Path(patches).parent), whole=patches is not None)


def _source(path, reading):
    """Name and SHA-256 of the file that annotations were read from, and what was left out of it."""
    left_out = [part.to_json() for part in reading.left_out]
    source = {"file": Path(path).name, "sha256": _sha256(Path(path))}
    return source | ({"left_out": left_out} if left_out else {})


def _sha256(path):
    """SHA-256 of a file; of a folder, that of the names and sums of its files."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.iterdir() if file.is_file())
    sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(sums.encode(errors="surrogateescape")).hexdigest()


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


COMMANDS = {"add": add}
