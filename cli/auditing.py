"""The verb audit."""

import json
import os

import click

from featstore_cli.experiments import embeddings_of
from featstore_cli.options import (
    PAPER_MPP,
    UmPerPixel,
    checked_place,
    dataset_option,
    format_options,
    metric_option,
    objective_options,
    splits_option,
    store_argument,
)
from featstore_cli.probing import splits_of
from featstore_cli.render import emit

PAPER_PX = 224  # Ganz et al., section 3
PAPER_METRICS = ("auroc",)
# What is said of the test part; findings against training alone are in --csv and --json.
SHOWN = ("train+val", "")
DIGITS = 4  # of differences of metrics that are printed


@click.command()
@store_argument
@dataset_option
@splits_option(required=True)
@click.option(
    "--patch-px",
    type=click.IntRange(min=1),
    help=f"Width of a patch [default: {PAPER_PX}; needed where patch files are whole].",
)
@click.option(
    "--mpp", type=UmPerPixel(), default=PAPER_MPP, show_default=True, help="Um per pixel of it."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Look for duplicates in the embeddings of this model; with --cost again for more "
    "[default with --cost: all].",
)
@click.option(
    "--near",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    help="Cosine from which on embeddings are near-duplicates [default: 0.9999].",
)
@click.option("--positive", help="Label that patches of others should not hold.")
@click.option(
    "--by",
    type=click.Choice(["size", "domain"]),
    default="size",
    show_default=True,
    help="What the table has columns for.",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="FINDING",
    help="Finding of the table, such as overlapping; again for more. Needs --out or --cost.",
)
@click.option(
    "--thin",
    type=click.Choice(["test", "train"]),
    default="test",
    show_default=True,
    help="What gives up annotations in --out: the test part, or training and validation.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    help="Write the splits without what is dropped into this file.",
)
@click.option(
    "--cost",
    is_flag=True,
    help="Instead, --metric of each --model on these splits, on train or test parts without what "
    "is dropped [default: overlapping], and on grouped ones.",
)
@click.option(
    "--group", default="slide", show_default=True, help="Column of the grouped splits of --cost."
)
@metric_option
@objective_options
@format_options
def audit(store, dataset, splits_file, form, **options):
    """Count what test patches of a dataset in STORE share with training, and drop it.

    Pixels, slides, cases, other cells in the same patch and, with --model, embeddings. Positions
    are enough; no image is opened.
    """
    _check(options)
    _check_out(options["out"], splits_file)
    import featstore

    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    splits = splits_of(splits_file, annotations)
    sources = _sources(opened, dataset, options)
    found = _found(opened, annotations, splits, sources, options)
    if options["out"]:
        _write(found.without(splits, *options["drop"], thin=options["thin"]), options["out"])
    if options["cost"]:
        _show_cost(found, annotations, splits, sources, options, form)
    else:
        _show(found, options["by"], form)


def _check(options):
    """Refuse options that do not go together, before anything is read."""
    if bool(options["drop"]) != bool(options["out"]) and not options["cost"]:
        raise click.UsageError("give --drop FINDING and --out FILE together, or --cost")
    if options["out"] and not options["drop"]:
        raise click.UsageError("name with --drop what the splits in --out should be without")
    if options["near"] and not options["models"]:
        raise click.UsageError("--near is of embeddings: name their --model")
    if options["metrics"] != PAPER_METRICS and not options["cost"]:
        raise click.UsageError("--metric is of the probes that --cost fits: give both")
    if len(options["models"]) > 1 and not options["cost"]:
        raise click.UsageError("duplicates are looked for in one --model; more go with --cost")


def _check_out(path, splits_file):
    """Refuse to write over what is audited."""
    if path and os.path.realpath(path) == os.path.realpath(splits_file):
        raise click.ClickException(
            f"--out {path} is the file that is audited, which would be lost; give another name"
        )


def _sources(opened, dataset, options):
    """Embeddings of the models that are named; all that are complete, where probes are fitted."""
    named = options["models"]
    return embeddings_of(opened, named, dataset) if named or options["cost"] else []


def _found(opened, annotations, splits, sources, options):
    import probes

    where = {"patch_px": options["patch_px"] or PAPER_PX, "mpp": options["mpp"]}
    if opened.has_whole_patches(annotations.name):
        _check_whole(annotations, options)
        where["image"] = "slide"  # of patch files, positions are on the slide
    near = {"near": options["near"]} if options["near"] else {}
    searched = not options["cost"] or any("duplicates" in name for name in options["drop"])
    source = sources[0] if sources and searched else None
    return probes.audit(
        annotations, splits, source=source, positive=options["positive"], **where, **near
    )


def _check_whole(annotations, options):
    if options["patch_px"] is None and {"x", "y", "slide"} <= set(annotations.columns):
        raise click.ClickException(
            f"{annotations.name!r} holds patch files; say with --patch-px, and --mpp, what each "
            "covers of its slide"
        )


def _write(splits, path):
    splits.save(path)
    click.echo(f"splits {splits.rule}: {path}", err=True)


def _show(found, by, form):
    if form == "json":
        click.echo(json.dumps(found.to_dict(), indent=1))
        return
    emit(_percentages(found.summary(by), by), form, rows=found.to_frame())
    if form is None:
        for line in ("", *_sizes(found.splits, by), *_remarks(found)):
            click.echo(line)


def _percentages(table, by):
    """Mean shares of the test part in per cent: findings down, sizes or domains across."""
    shown = table[table["against"].isin(SHOWN)]
    columns = list(dict.fromkeys(shown[by]))
    wide = shown.pivot(index="finding", columns=by, values="share")
    wide = wide.loc[list(dict.fromkeys(shown["finding"])), columns]
    wide = wide.map(lambda share: "-" if share != share else f"{100 * share:.1f} %")
    names = {column: _heading(column, by) for column in columns}
    return wide.rename(columns=names).reset_index()


def _heading(column, by):
    return f"size {column:g}" if by == "size" else column or "all domains"


def _sizes(splits, by):
    """Say which of several sizes a table by domain is of."""
    sizes = {split.size for split in splits}
    return [f"size {max(sizes):g} only, the largest"] if by == "domain" and len(sizes) > 1 else []


def _remarks(found):
    """Yield what a reader of the table has to know beside it."""
    settings, n = found.settings, len(found.ids)
    if "patch_px" in settings:
        yield f"windows of {settings['patch_px']} px at {settings['mpp']:g} um/px"
        unknown = settings["annotations_of_unknown_mpp"]
        if unknown:
            yield (
                f"images of {unknown:,} of {n:,} annotations are of unknown um/px and taken to be "
                "at as many"
            )
    for column, (value, count) in found.largest.items():
        yield f"largest {column}: {value}, {count:,} of {n:,} annotations ({100 * count / n:.1f} %)"
    for finding, reason in found.not_audited.items():
        yield f"{finding}: not audited, {reason}"


def _show_cost(found, annotations, splits, sources, options, form):
    import probes

    how = {name: options[name] for name in ("group", "metrics", "objective", "C", "solver")}
    drop = options["drop"] or ("overlapping",)
    cost = probes.leakage_cost(sources, annotations, splits, found=found, drop=drop, **how)
    table = cost.summary()
    differences = {name: DIGITS for name in table if "_difference" in name}
    emit(table.round(differences), form, rows=cost.to_frame())


COMMANDS = {"audit": audit}
