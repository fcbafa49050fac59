"""Verbs over embeddings: split, probe, curve, domains."""

import click

from featstore_cli.options import (
    as_sizes,
    checked_place,
    dataset_option,
    format_options,
    model_option,
    objective_options,
    plot_option,
    results_option,
    splits_option,
    store_argument,
)
from featstore_cli.render import emit, save_plot, save_results

share = click.FloatRange(min=0, max=1, max_open=True)
models_option = click.option(
    "--model",
    "models",
    multiple=True,
    help="Name of a model, or MODEL:POOLING; again for more [default: all].",
)
repeats_option = click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
seed_option = click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True)


@click.command()
@store_argument
@dataset_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    required=True,
    help="JSON file to write.",
)
@repeats_option
@click.option("--test", type=share, default=0.2, show_default=True, help="Share of all.")
@click.option(
    "--val", type=share, default=0.2, show_default=True, help="Share of the training draw."
)
@click.option(
    "--train",
    default="0.001,0.01,0.1,1",
    show_default=True,
    callback=as_sizes,
    help="Shares of the rest, separated by commas.",
)
@click.option("--group", help="Column whose values stay in one part, such as slide.")
@seed_option
@format_options
def split(store, dataset, out, repeats, test, val, train, group, seed, form):
    """Draw train, validation and test annotations of a dataset in STORE into a file."""
    import featstore
    import probes

    annotations = featstore.open(store).annotations(dataset)
    shares = {"repeats": repeats, "test": test, "val": val, "train": train, "seed": seed}
    if group is None:
        splits = probes.monte_carlo(annotations, **shares)
    else:
        splits = probes.grouped(annotations, group=group, **shares)
    splits.save(out)
    emit(_split_table(splits), form)
    click.echo(f"splits: {out}", err=True)


def _split_table(splits):
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "repeat": split.repeat,
                "size": split.size,
                "n_train": len(split.train),
                "n_val": len(split.val),
                "n_test": len(split.test),
                "digest": split.digest[:15],
            }
            for split in splits
        ]
    )


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
@objective_options
@format_options
def probe(store, model, dataset, splits_file, number, objective, C, solver, form):
    """Fit one linear probe on embeddings in STORE and test it."""
    import pandas as pd

    import featstore
    import probes

    opened = featstore.open(store)
    annotations, embeddings = opened.annotations(dataset), opened.embeddings(model, dataset)
    split = _one(splits_of(splits_file, annotations), number, splits_file)
    fitted = probes.LogisticProbe(objective, C, solver=solver)
    fitted.fit_source(embeddings, annotations, split)
    score = fitted.score_source(embeddings, annotations, split)
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
                    "auroc": score.auroc,
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
    help="CSV of results to put beside, such as those of 'train'; they must be on the same splits.",
)
@objective_options
@plot_option
@results_option
@format_options
def curve(store, dataset, models, splits_file, beside, objective, C, solver, plot, results, form):
    """AUROC by size of the training set: a learning curve for each model in STORE."""
    import featstore
    import probes

    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    splits = splits_of(splits_file, annotations) if splits_file else probes.monte_carlo(annotations)
    sources = _embeddings(opened, models, dataset)
    others = _results_on(splits, beside, [each.model for each in sources]) if beside else []
    curves = [
        probes.learning_curve(source, annotations, splits, objective=objective, C=C, solver=solver)
        for source in sources
    ]
    rows = [row for each in curves for row in each.rows] + others
    together = probes.LearningCurve(tuple(rows))
    save_results(together.to_frame(), results)
    emit(together.summary(), form, rows=together.to_frame())
    if plot:
        save_plot(lambda axes: together.plot(axes[0]), plot, width_in=6.4, height_in=4.2)


def _results_on(splits, path, models):
    """Rows of a CSV of results, all of them on these splits and of other models."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values={"value": [""]})
        frame["value"] = pd.to_numeric(frame["value"])
        tested, there = set(frame["split"]), sorted(set(frame["model"]) & set(models))
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise click.ClickException(f"{path} is not a CSV of results ({reason})") from error
    if not tested <= {split.digest for split in splits}:
        raise click.ClickException(
            f"{path} holds results on other splits than these; run both on the same --splits FILE"
        )
    if there:
        raise click.ClickException(
            f"{path} holds results of {', '.join(there)}, which are fitted here too; name other "
            "models with --model"
        )
    return frame.to_dict("records")


def _embeddings(opened, models, dataset):
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


@click.command()
@store_argument
@dataset_option
@models_option
@repeats_option
@seed_option
@objective_options
@plot_option
@results_option
@format_options
def domains(store, dataset, models, repeats, seed, objective, C, solver, plot, results, form):
    """AUROC by training and test domain: a matrix for each model in STORE."""
    import pandas as pd

    import featstore
    import probes

    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    chosen = {"objective": objective, "C": C, "solver": solver}
    matrices = [
        probes.cross_domain(embeddings, annotations, repeats=repeats, seed=seed, **chosen)
        for embeddings in _embeddings(opened, models, dataset)
    ]
    if form is None:
        for matrix in matrices:
            click.echo(f"{matrix.rows[0]['model']}: trained on (down), tested on (across)")
            emit(matrix.matrix().map("{:.3f}".format).reset_index())
            click.echo()
    rows = pd.concat([matrix.to_frame() for matrix in matrices])
    save_results(rows, results)
    emit(pd.concat([matrix.summary() for matrix in matrices]), form, rows=rows)
    if plot:
        save_plot(
            lambda axes: [matrix.plot(ax) for matrix, ax in zip(matrices, axes, strict=True)],
            plot,
            width_in=6.0 * len(matrices),
            height_in=5.0,
            panels=len(matrices),
        )


COMMANDS = {"split": split, "probe": probe, "curve": curve, "domains": domains}
