"""The verb extract."""

import contextlib
import dataclasses
import json
import signal
from datetime import UTC, datetime

import click

from featstore_cli.options import (
    checked_place,
    cutting_options,
    dataset_option,
    device_option,
    paper_mpp,
    quiet_option,
    store_argument,
)

# As a shell reports a process that a signal ended: 128 and the signal's number.
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


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
@click.option(
    "--log",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    help="Append a line of JSON to this file after each chunk.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@quiet_option
def extract(
    store,
    model,
    dataset,
    mpp,
    images,
    batch_size,
    workers,
    device,
    log,
    dry_run,
    quiet,
    **build_options,
):
    """Embed every annotation of a dataset in STORE that has no embedding of this model yet.

    Interrupted and started again, it goes on with the chunk it was at. SIGTERM, as batch systems
    send it, ends it after that chunk, with exit code 143.
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
    settings |= {"on_start": _say_start, "on_chunk": lambda done: _log(log, done)}
    with _told_to_end() as told:
        try:
            done = run_extract(store, dataset, encoder, patches, should_stop=told, **settings)
        except KeyboardInterrupt:
            _say_interrupted(store, encoder.spec.key, dataset)
            raise SystemExit(INTERRUPTED) from None
        except RuntimeError:
            if not told():
                raise
            done = None  # the workers were told too, and ended at once
    if done is None or not done.complete:
        _say_interrupted(store, encoder.spec.key, dataset)
        raise SystemExit(TERMINATED)
    _say_done(done, encoder.spec)


@contextlib.contextmanager
def _told_to_end():
    """Give what says whether SIGTERM has come; until the block ends, that is all it does."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before)


def _log(path, done):
    """Append what is done so far as a line of JSON, where a file is named."""
    if path is None:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"time": now, **dataclasses.asdict(done), "patches_per_s": done.patches_per_s}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


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
        f"{done.wall_s:.1f} s ({done.patches_per_s:.0f} patches/s, {spec.precision}): "
        f"{done.share(done.encode_s):.0%} in the encoder, {done.share(done.wait_s):.0%} waiting "
        f"for patches, {done.share(done.stall_s):.0%} for the disk"
    )


COMMANDS = {"extract": extract}
