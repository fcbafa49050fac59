"""The experiments: curve and domains, for any number of models of a store."""

import click

from featstore_cli.options import (
    dataset_option,
    format_options,
    keep_scores_option,
    metric_option,
    objective_options,
    plot_option,
    repeats_option,
    results_option,
    seed_option,
    splits_option,
    store_argument,
)
from featstore_cli.probing import splits_of
from featstore_cli.render import emit, save_plot
from featstore_cli.seen import say_seen

__all__ = ["COMMANDS", "embeddings_of", "models_option"]

models_option = click.option(
    "--model",
    "models",
    multiple=True,
    help="Name of a model, or MODEL:POOLING; again for more [default: all].",
)


@click.command()
@store_argument
@dataset_option
@models_option
@splits_option(
    required=False, help="From 'split' [default: the paper's, drawn by annotation with seed 42]."
)
@click.option(
    "--beside",
    type=click.Path(),
    help="Results to put beside, such as those of 'train'; they must be on the same splits.",
)
@metric_option
@objective_options
@plot_option
@results_option
@keep_scores_option
@format_options
def curve(store, dataset, models, splits_file, beside, plot, place, form, **options):
    """AUROC by size of the training set: a learning curve for each model in STORE."""
    import featstore
    import probes

    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    splits = splits_of(splits_file, annotations) if splits_file else probes.monte_carlo(annotations)
    sources = embeddings_of(opened, models, dataset)
    say_seen(sources, annotations, splits, splits)
    others = _results_on(splits, beside, sources, options["metrics"]) if beside else None
    result = probes.learning_curve(sources, annotations, splits, **_words(options, place))
    if others is not None:
        result = result.merged(others)
        if place:
            others.add_to(place)
    _say_where(place)
    emit(result.summary(), form, rows=result.to_frame())
    if plot:
        save_plot(result.plot, plot)


def _words(options, place):
    """Give what both experiments are told beside data and splits."""
    if options["keep_scores"] and not place:
        raise click.UsageError("--keep-scores needs a folder to keep them in: --results FOLDER")
    return options | {"place": place, "say": lambda note: click.echo(note, err=True)}


def _say_where(place):
    if place:
        click.echo(f"results: {place}", err=True)


def embeddings_of(opened, models, dataset):
    """Embeddings of the named models, or of all that are complete."""
    listed = [row for row in opened.list() if row.dataset == dataset]
    for row in [row for row in listed if not (models or row.complete)]:
        click.echo(f"leaving out {row.model}: {row.rows:,} embeddings are there yet", err=True)
    chosen = dict.fromkeys(models or [row.model for row in listed if row.complete])
    if not chosen:
        raise click.ClickException(
            f"no complete embeddings of {dataset!r} in {opened.path}; make some with "
            "'featstore extract'"
        )
    embeddings = [opened.embeddings(model, dataset) for model in chosen]
    return list({each.model: each for each in embeddings}.values())  # 'uni:class' may be 'uni'


def _results_on(splits, path, sources, metrics):
    """Rows of learning curves at a place that are on these splits, and of other models."""
    import probes

    others = probes.Results.load(path).where(experiment="learning_curve", metric=set(metrics))
    if not len(others):
        raise click.ClickException(
            f"{path} holds no learning curve in {', '.join(metrics)}; name results of 'train' or "
            "'curve'"
        )
    others = others.where(split={split.digest for split in splits})
    if not len(others):
        raise click.ClickException(
            f"{path} holds results on other splits than these; run both on the same --splits FILE"
        )
    models = {source.model for source in sources}
    there = sorted({row["model"] for row in others.rows} & models)
    if there:
        raise click.ClickException(
            f"{path} holds results of {', '.join(there)}, which are fitted here too; name other "
            "models with --model"
        )
    return others


@click.command()
@store_argument
@dataset_option
@models_option
@splits_option(
    required=False,
    help="From 'split' [default: the paper's, drawn with --repeats and --seed].",
)
@repeats_option
@seed_option
@metric_option
@objective_options
@plot_option
@results_option
@keep_scores_option
@format_options
def domains(store, dataset, models, splits_file, repeats, seed, plot, place, form, **options):
    """AUROC by training and test domain: a matrix for each model in STORE."""
    import featstore
    import probes

    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    if splits_file:
        splits = splits_of(splits_file, annotations)
    else:
        splits = probes.single_domain(annotations, repeats=repeats, seed=seed)
    sources = embeddings_of(opened, models, dataset)
    say_seen(sources, annotations, splits, splits)
    result = probes.cross_domain(sources, annotations, splits, **_words(options, place))
    matrices = [result.where(model=name) for name in dict.fromkeys(result.to_frame()["model"])]
    if form is None:
        for matrix in matrices:
            _show_matrices(matrix, options["metrics"])
    _say_where(place)
    emit(result.summary(), form, rows=result.to_frame())
    if plot:
        save_plot(result.plot, plot)


def _show_matrices(matrix, metrics):
    """Print a table for each metric, training domains down."""
    model = matrix.rows[0]["model"]
    for metric in dict.fromkeys(metrics):
        of_metric = "" if metric == "auroc" else f" {metric},"
        click.echo(f"{model}:{of_metric} trained on (down), tested on (across)")
        emit(matrix.matrix(metric).map("{:.3f}".format, na_action="ignore").reset_index())
        click.echo()


COMMANDS = {"curve": curve, "domains": domains}
