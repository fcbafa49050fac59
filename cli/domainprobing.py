"""The verb domain-probe."""

import click

from featstore_cli.experiments import embeddings_of, models_option
from featstore_cli.options import (
    dataset_option,
    format_options,
    keep_scores_option,
    objective_options,
    repeats_option,
    results_option,
    seed_option,
    splits_option,
    store_argument,
)
from featstore_cli.probing import splits_of
from featstore_cli.render import emit


@click.command()
@store_argument
@dataset_option
@models_option
@click.option(
    "--column",
    default="domain",
    show_default=True,
    help="What is read off the embeddings: domain, scanner, slide, ...",
)
@splits_option(
    required=False, help="From 'split' [default: drawn by slide, with each domain in every part]."
)
@click.option(
    "--group",
    default="slide",
    show_default=True,
    help="Column whose values stay in one part of splits that are drawn; '' draws single cells, "
    "so that a probe may know a slide again.",
)
@repeats_option
@seed_option
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=["auroc", "balanced_accuracy"],
    show_default=True,
    help="What is computed of each test part; again for more.",
)
@objective_options
@results_option
@keep_scores_option
@format_options
def domain_probe(store, dataset, models, splits_file, group, place, form, **options):
    """How well domain or scanner can be read off the embeddings in STORE, beside the task."""
    import featstore
    import probes

    if options["keep_scores"] and not place:
        raise click.UsageError("--keep-scores needs a folder to keep them in: --results FOLDER")
    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    splits = splits_of(splits_file, annotations) if splits_file else None
    result = probes.domain_probe(
        embeddings_of(opened, models, dataset),
        annotations,
        splits,
        group=group or None,
        place=place,
        say=lambda note: click.echo(note, err=True),
        **options,
    )
    if place:
        click.echo(f"results: {place}", err=True)
    emit(result.summary(), form, rows=result.to_frame())


COMMANDS = {"domain-probe": domain_probe}
