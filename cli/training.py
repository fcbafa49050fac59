"""The verb train."""

from pathlib import Path

import click

from featstore_cli.options import (
    cutting_options,
    dataset_option,
    device_option,
    format_options,
    paper_mpp,
    quiet_option,
    results_option,
    splits_option,
    store_argument,
)
from featstore_cli.probing import splits_of
from featstore_cli.render import emit, save_results


@click.command()
@store_argument
@dataset_option
@splits_option(required=True)
@click.option(
    "--repeat",
    "repeats",
    type=int,
    multiple=True,
    help="Only this repeat of the splits; again for more [default: all].",
)
@click.option("--network", default="timm:resnet50", show_default=True, help="timm:NAME.")
@click.option(
    "--weights",
    "pretrained",
    type=click.Path(),
    help="Checkpoint to start from [default: random weights].",
)
@click.option(
    "--patch-px",
    type=click.IntRange(min=8),
    default=224,
    show_default=True,
    help="Width of the network's input.",
)
@cutting_options
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--learning-rate",
    "max_learning_rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-4,
    show_default=True,
    help="Maximum of the one-cycle schedule.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Processes that augment patches.",
)
@device_option
@click.option("--save", type=click.Path(file_okay=False), help="Keep the networks in this folder.")
@quiet_option
@results_option
@format_options
def train(store, dataset, splits_file, repeats, mpp, images, save, quiet, results, form, **recipe):
    """Train a network end to end on the splits that probes use, and test it on the same cells."""
    import featstore
    import probes
    from featstore.patches import patches_of
    from probes import endtoend

    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    chosen = _of_repeats(splits_of(splits_file, annotations), repeats, splits_file)
    patches = patches_of(
        opened,
        dataset,
        patch_px=endtoend.source_px(recipe["patch_px"]),
        mpp=mpp or paper_mpp(opened, dataset),
        images=images,
    )
    rows = []
    try:
        for split in chosen:
            click.echo(f"{split.name}: {len(split.train)} to train on", err=True)
            trained = endtoend.train(patches, annotations, split, progress=not quiet, **recipe)
            score = probes.evaluate(trained, patches, annotations, split)
            rows.append(_row(trained, score, split, annotations))
            _save(trained, save, split)
    finally:  # an interrupted run keeps what it has
        curve = probes.LearningCurve(tuple(rows))
        save_results(curve.to_frame(), results)
    emit(curve.summary(), form, rows=curve.to_frame())


def _of_repeats(splits, repeats, path):
    chosen = [split for split in splits if not repeats or split.repeat in repeats]
    if not chosen:
        raise click.ClickException(
            f"{path} has no repeat {', '.join(map(str, repeats))}; it holds 0 to "
            f"{splits[-1].repeat}"
        )
    return chosen


def _row(trained, score, split, annotations):
    import probes

    name = f"end-to-end {trained.network.removeprefix('timm:')}"
    return probes.result_row(
        score, split, model=name, annotations=annotations, experiment="learning_curve"
    )


def _save(trained, folder, split):
    """Keep a trained network, where a folder is named."""
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    name = f"{trained.network.removeprefix('timm:')}-repeat{split.repeat}-size{split.size:g}"
    trained.save(Path(folder) / f"{name}.safetensors")


COMMANDS = {"train": train}
