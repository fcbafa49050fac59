"""The verb probe."""

import click

from featstore_cli.options import (
    dataset_option,
    format_options,
    metric_option,
    model_option,
    objective_options,
    splits_option,
    store_argument,
)
from featstore_cli.render import emit
from featstore_cli.seen import say_seen


@click.command()
@store_argument
@model_option
@dataset_option
@splits_option(required=True)
@click.option(
    "--number",
    type=int,
    default=-1,
    show_default=True,
    help="Which split of the file; -1 is the last.",
)
@metric_option
@objective_options
@format_options
def probe(store, model, dataset, splits_file, number, metrics, objective, C, solver, form):
    """Fit one linear probe on embeddings in STORE and test it."""
    import pandas as pd

    import featstore
    import probes
    from probes.results import check_metrics

    metrics = check_metrics(metrics)
    opened = featstore.open(store)
    annotations, embeddings = opened.annotations(dataset), opened.embeddings(model, dataset)
    splits = splits_of(splits_file, annotations)
    split = _one(splits, number, splits_file)
    say_seen([embeddings], annotations, [split], splits)
    fitted = probes.LogisticProbe(objective, C, solver=solver)
    fitted.fit_source(embeddings, annotations, split)
    score = fitted.score_source(embeddings, annotations, split)
    cells = {"model": embeddings.model, "annotations": annotations, "experiment": "probe"}
    rows = probes.result_rows(score, split, metrics=metrics, **cells)
    for row in [row for row in rows if row["reason"]]:
        click.echo(f"{row['metric']} is undefined: {row['reason']}", err=True)
    emit(
        pd.DataFrame(
            [
                {
                    "model": embeddings.model,
                    "dataset": dataset,
                    "repeat": split.repeat,
                    "size": split.size,
                    "n_train": len(split.train),
                    "n_test": score.n_test,
                    **{row["metric"]: row["value"] for row in rows},
                    "C": fitted.C_,
                    "iterations": fitted.n_iter_,
                    "converged": fitted.converged_,
                    "collapsed": fitted.collapsed_,
                }
            ]
        ),
        form,
    )


def splits_of(path, annotations):
    """Read a file of splits and check that it is of these annotations."""
    import probes

    splits = probes.load_splits(path)
    splits.check(annotations)
    return splits


def _one(splits, number, path):
    if not -len(splits) <= number < len(splits):
        raise click.ClickException(f"no split {number} in {path}; it holds 0 to {len(splits) - 1}")
    return splits[number]


COMMANDS = {"probe": probe}
