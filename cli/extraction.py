"""The verb extract."""

import click

from featstore_cli.options import (
    cutting_options,
    dataset_option,
    device_option,
    paper_mpp,
    quiet_option,
    store_argument,
)


@click.command()
@store_argument
@click.option("--model", required=True, help="A registered encoder, or timm:NAME.")
@dataset_option
@click.option("--weights", type=click.Path(), help="Checkpoint: safetensors, or torch tensors.")
@click.option(
    "--allow-other-weights",
    is_flag=True,
    help="Take a checkpoint whose SHA-256 is not the registry's.",
)
@click.option(
    "--random-weights",
    type=click.IntRange(0, 2**63 - 1),
    metavar="SEED",
    help="Random weights, for comparison.",
)
@click.option(
    "--pooling",
    type=click.Choice(["average", "class", "mean", "class+mean"]),
    help="In place of the encoder's own.",
)
@click.option("--name", "key", help="Name in the store [default: the encoder's].")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the forward pass.",
)
@cutting_options
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Processes that cut patches.",
)
@device_option
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@quiet_option
def extract(
    store, model, dataset, mpp, images, batch_size, workers, device, dry_run, quiet, **build_options
):
    """Embed every annotation of a dataset in STORE that has no embedding of this model yet.

    Interrupted and started again, it goes on with the chunk it was at.
    """
    import featstore
    from featstore.encoders.build import build
    from featstore.extract import extract as run_extract
    from featstore.patches import patches_of

    if build_options["weights"] and build_options["random_weights"] is not None:
        raise click.UsageError("give either --weights FILE or --random-weights SEED")
    opened = featstore.open(store)
    mpp = mpp or paper_mpp(opened, dataset)
    if dry_run:
        _say_budget(opened, model, dataset, build_options)
        return
    encoder = build(model, mpp=mpp, device=_device(device), **build_options)
    patches = patches_of(opened, dataset, patch_px=encoder.spec.input_px, mpp=mpp, images=images)
    settings = {"batch_size": batch_size, "workers": workers, "progress": not quiet}
    try:
        done = run_extract(store, dataset, encoder, patches, on_start=_say_start, **settings)
    except KeyboardInterrupt:
        _say_interrupted(store, encoder.spec.key, dataset)
        raise SystemExit(130) from None
    _say_done(done, encoder.spec)


def _say_budget(opened, model, dataset, build_options):
    """Print rows, bytes and files; weights are not needed for that."""
    from featstore.encoders.build import build
    from featstore.store.layout import file_budget

    spec = build(model, **build_options | {"weights": None, "random_weights": 0}).spec
    dtype = "float32" if spec.precision == "float32" else "float16"
    rows = len(opened.annotations(dataset))
    n_bytes, n_files = file_budget(rows, spec.dim, dtype)
    size = f"{n_bytes / 2**20:,.1f} MiB in {n_files} files"
    click.echo(f"{rows:,} embeddings of {spec.dim} as {dtype}: {size}")


def _device(name):
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _say_start(there, rows):
    if 0 < there < rows:
        click.echo(
            f"going on where it stopped: {there:,} of {rows:,} embeddings are there", err=True
        )


def _say_interrupted(store, model, dataset):
    import featstore

    rows = {(row.model, row.dataset): row.rows for row in featstore.open(store).list()}
    there = rows.get((model, dataset), 0)
    click.echo(
        f"\ninterrupted: {there:,} embeddings are there; the same command goes on with the rest",
        err=True,
    )


def _say_done(done, spec):
    if done.rows_new == 0:
        click.echo(f"{done.model}/{done.dataset}: all {done.rows_before:,} embeddings are there")
        return
    click.echo(
        f"{done.model}/{done.dataset}: {done.rows_new:,} embeddings of {spec.dim} in "
        f"{done.wall_s:.1f} s ({done.patches_per_s:.0f} patches/s, {spec.precision}; "
        f"{done.stall_share:.1%} waiting for the disk)"
    )


COMMANDS = {"extract": extract}
