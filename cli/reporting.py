"""Verbs that put results together: report, reproduce."""

from pathlib import Path

import click

from featstore_cli.experiments import embeddings_of
from featstore_cli.options import (
    PAPER_MPP,
    UmPerPixel,
    as_sizes,
    checked_place,
    seed_option,
    store_argument,
)

PAPER_PX = 224  # Ganz et al., section 3
REPORT = "report.html"


@click.command()
@store_argument
@click.option(
    "--results",
    "folder",
    type=click.Path(file_okay=False),
    required=True,
    help="Folder that 'reproduce' filled, or any with files of results.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    help=f"HTML file to write [default: {REPORT} in that folder].",
)
def report(store, folder, out):
    """Put results on models in STORE together into one HTML page, figures and all.

    The page needs no network and nothing beside it. What is not among the results, it says.
    """
    import featstore
    from probes.report import ResultFolder

    _write_report(featstore.open(store), ResultFolder.read(folder), out or Path(folder) / REPORT)


def _write_report(opened, found, path):
    from featstore_cli.reportpage import report_of

    report_of(opened, found).save(path)
    for line in found.left_aside:
        click.echo(f"left aside: {line}", err=True)
    click.echo(f"report: {path}", err=True)


@click.command()
@store_argument
@click.option(
    "--dataset", "datasets", multiple=True, help="Only this one; again for more [default: all]."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default="reproduced",
    show_default=True,
    help="Folder for splits, results, tables and the report.",
)
@click.option(
    "--beside",
    type=click.Path(),
    multiple=True,
    help="Results to put beside, such as those of 'train' on the splits of the folder; again for "
    "more.",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), help="Of both experiments [default: the paper's 5]."
)
@click.option(
    "--train",
    callback=lambda ctx, param, text: None if text is None else as_sizes(ctx, param, text),
    help="Shares to train on, where a dataset is too small for the paper's 0.001,0.01,0.1,1.",
)
@click.option(
    "--patch-px",
    type=click.IntRange(min=1),
    help=f"Width of a patch that is audited [default: {PAPER_PX}; needed where patch files are "
    "whole].",
)
@click.option(
    "--mpp", type=UmPerPixel(), default=PAPER_MPP, show_default=True, help="Um per pixel of it."
)
@seed_option
def reproduce(store, datasets, out, beside, patch_px, mpp, **options):
    """Run the paper's experiments on all models in STORE, and what its design hides.

    Both experiments, comparisons, an audit of the splits, the cost of leakage, a probe of the
    domain, then the report. Run again, it goes on with what is there.
    """
    import featstore
    import probes.report

    opened = featstore.open(store)
    for dataset in datasets or _with_embeddings(opened):
        annotations = opened.annotations(dataset)
        click.secho(dataset, bold=True)
        probes.report.reproduce(
            embeddings_of(opened, (), dataset),
            annotations,
            Path(out) / dataset,
            windows=_windows(opened, dataset, patch_px, mpp),
            beside=beside,
            say=click.echo,
            **options,
        )
    found = probes.report.ResultFolder.read(out)
    _write_tables(found, Path(out))
    _write_report(opened, found, Path(out) / REPORT)


def _with_embeddings(opened):
    """Datasets of which a model is complete."""
    datasets = [name for name in opened.datasets() if opened.models(name)]
    if not datasets:
        raise click.ClickException(
            f"no complete embeddings in {opened.path}; make some with 'featstore extract'"
        )
    return datasets


def _windows(opened, dataset, patch_px, mpp):
    """Say what a patch covers, for the audit; None where that is not known."""
    if not opened.has_whole_patches(dataset):
        return {"patch_px": patch_px or PAPER_PX, "mpp": mpp}
    return {"patch_px": patch_px, "mpp": mpp, "image": "slide"} if patch_px else None


def _write_tables(found, folder):
    """Write Figure 1, Figure 2 and Table 2 as files of their own."""
    from probes.report import write_paper

    for path in write_paper(found.results, folder):
        click.echo(str(path))


COMMANDS = {"report": report, "reproduce": reproduce}
