"""The verb cut."""

import click

from featstore_cli.options import (
    cutting_options,
    dataset_option,
    paper_mpp,
    quiet_option,
    store_argument,
)
from featstore_cli.render import emit

PAPER_PX = 224  # Ganz et al., section 3


@click.command()
@store_argument
@dataset_option
@click.option(
    "--patch-px",
    type=click.IntRange(min=1),
    default=PAPER_PX,
    show_default=True,
    help="Width of a patch; larger ones serve smaller encoders and the trainer too.",
)
@cutting_options
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads [default: one for each processor]."
)
@click.option("--replace", is_flag=True, help="Take away patches that were cut in another way.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@quiet_option
def cut(store, dataset, patch_px, mpp, images, workers, replace, dry_run, quiet):
    """Cut the patches of a dataset in STORE once, for all encoders and the trainer.

    They are kept as they are, without loss, and take patch-px x patch-px x 3 bytes each. Nothing
    needs them: extraction from the images gives the same embeddings. Interrupted and started again,
    it goes on where it was.
    """
    import featstore
    from featstore.cutting import cut as run_cut

    opened = featstore.open(store)
    mpp = mpp or paper_mpp(opened, dataset)
    if _is_there(opened, dataset, patch_px, mpp):
        click.echo(f"{dataset}: all {_what(opened.patches(dataset))} are there")
        emit(_windows(opened.patches(dataset)))
        return
    patches = featstore.Patches.of(opened, dataset, patch_px=patch_px, mpp=mpp, images=images)
    if dry_run:
        _say_budget(patches)
        return
    how = {"workers": workers, "replace": replace, "progress": not quiet}
    try:
        done = run_cut(store, patches, on_start=_say_start, **how)
    except KeyboardInterrupt:
        _say_interrupted(store, dataset)
        raise SystemExit(130) from None
    cached = featstore.open(store).patches(dataset)
    speed = f"{done.wall_s:.1f} s ({done.patches_per_s:.0f} patches/s)"
    click.echo(f"{dataset}: {_what(cached)} are there, {done.rows_new:,} of them cut in {speed}")
    emit(_windows(cached))


def _is_there(opened, dataset, patch_px, mpp):
    """Whether the whole cache is there, for which no image is needed."""
    from featstore.windows import CutSpec

    if dataset not in opened.cached_datasets():
        return False
    cached = opened.patches(dataset)
    return cached.info.complete and cached.cut == CutSpec(patch_px, mpp)


def _what(cached):
    at = "" if cached.mpp is None else f" at {cached.mpp:g} um/px"
    return f"{len(cached.ids):,} patches of {cached.patch_px} px{at}"


def _say_budget(patches):
    from featstore.store.layout import file_budget

    n_bytes, n_files = file_budget(len(patches.ids), patches.patch_px**2 * 3, "uint8")
    size = f"{n_bytes / 2**20:,.1f} MiB in about {n_files} files"
    click.echo(f"{len(patches.ids):,} patches of {patches.patch_px} px: {size}")


def _say_start(there, rows):
    if 0 < there < rows:
        click.echo(f"going on where it stopped: {there:,} of {rows:,} patches are there", err=True)


def _say_interrupted(store, dataset):
    import featstore

    opened = featstore.open(store)
    there = opened.patches(dataset).info.rows if dataset in opened.cached_datasets() else 0
    click.echo(
        f"\ninterrupted: {there:,} patches are there; the same command goes on with the rest",
        err=True,
    )


def _windows(cached):
    """Count, by label, what a user should know of the patches."""
    import pandas as pd

    frame = cached.windows.to_frame()
    rows = [
        {
            "label": label,
            "patches": len(group),
            "resampled": int((group["resample_factor"] != 1).sum()),
            "padded": int((group["padded_fraction"] > 0).sum()),
            "with others": int((group["others_in_window"] > 0).sum()),
            "with a mitotic figure": int(group["mitotic_figure_in_window"].sum()),
        }
        for label, group in frame.groupby("label")
    ]
    return pd.DataFrame(rows)


COMMANDS = {"cut": cut}
