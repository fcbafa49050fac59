"""The verb train."""

import dataclasses
import importlib.util
import os
import signal

import click

from featstore_cli.options import (
    cutting_options,
    dataset_option,
    device_option,
    format_options,
    metric_option,
    paper_mpp,
    quiet_option,
    results_option,
    splits_option,
    store_argument,
)
from featstore_cli.probing import splits_of
from featstore_cli.render import emit

INTERRUPTED = 128 + signal.SIGINT  # as a shell reports it

OF_PRESET = "[default: the preset's]"

# What decides a training; what is not given is the preset's.
RECIPE_OPTIONS = (
    click.option("--network", help=f"timm:NAME {OF_PRESET}."),
    click.option(
        "--weights",
        "pretrained",
        help=f"To start from: imagenet, random, or a checkpoint file {OF_PRESET}.",
    ),
    click.option(
        "--trainable",
        help=f"all, head, last-K-blocks, or lora-RANK for vision transformers {OF_PRESET}.",
    ),
    click.option("--patch-px", type=click.IntRange(min=8), help=f"Width of the input {OF_PRESET}."),
    click.option("--augmentation", help=f"ganz2024 or none {OF_PRESET}."),
    click.option(
        "--sampling",
        help=f"each-once, or slide-class: a slide, then a class, then a moved centre {OF_PRESET}.",
    ),
    click.option(
        "--samples-per-epoch", type=click.IntRange(min=1), help="Of --sampling slide-class."
    ),
    click.option("--epochs", type=click.IntRange(min=1), help=f"Passes {OF_PRESET}."),
    click.option(
        "--patience",
        type=click.IntRange(min=1),
        help="Stop after so many epochs without a lower validation loss.",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), help=f"Patches per step {OF_PRESET}."),
    click.option(
        "--learning-rate",
        "max_learning_rate",
        type=click.FloatRange(min=0, min_open=True),
        help=f"Maximum of the one-cycle schedule {OF_PRESET}.",
    ),
    click.option("--optimiser", help=f"adam or adamw {OF_PRESET}."),
    click.option("--weight-decay", type=click.FloatRange(min=0), help=f"Of it {OF_PRESET}."),
    click.option("--precision", help=f"32, bf16-mixed, 16-mixed or auto {OF_PRESET}."),
    click.option("--seed", type=click.IntRange(min=0), help=f"Of every training {OF_PRESET}."),
)

# What does not decide its result.
RUN_OPTIONS = (
    click.option("--download", is_flag=True, help="Fetch weights that are not on this machine."),
    click.option(
        "--workers",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        help="Processes that read and change patches.",
    ),
    click.option(
        "--augment-on",
        type=click.Choice(["auto", "workers", "device"]),
        default="auto",
        show_default=True,
    ),
    click.option(
        "--memory-gib",
        type=click.FloatRange(min=0),
        default=8.0,
        show_default=True,
        help="Patches beyond it are read as they are needed.",
    ),
    device_option,
    click.option(
        "--devices",
        metavar="cuda:0,cuda:1,...",
        help="Several, in place of --device: each trains on splits of its own.",
    ),
    click.option(
        "--ddp",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Devices that share each training; the batch is divided among them.",
    ),
)


def _with(options):
    """Give a verb several options, in their order."""

    def decorate(command):
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@store_argument
@dataset_option
@splits_option(required=True)
@click.option("--preset", default="ganz2024", show_default=True, help="What is not given below.")
@_with(RECIPE_OPTIONS)
@click.option(
    "--repeat",
    "repeats",
    type=int,
    multiple=True,
    help="Only this repeat of the splits; again for more [default: all].",
)
@results_option
@click.option("--save", type=click.Path(file_okay=False), help="Keep the networks in this folder.")
@click.option(
    "--checkpoints",
    type=click.Path(file_okay=False),
    help="Folder of trainings that are not done [default: beside the results].",
)
@click.option("--logs", type=click.Path(file_okay=False), help="Write CSV and TensorBoard logs.")
@click.option("--name", "model", help="In the results [default: end-to-end NETWORK].")
@metric_option
@cutting_options
@_with(RUN_OPTIONS)
@quiet_option
@format_options
def train(
    store,
    dataset,
    splits_file,
    preset,
    repeats,
    place,
    save,
    checkpoints,
    logs,
    model,
    metrics,
    mpp,
    images,
    download,
    device,
    devices,
    ddp,
    workers,
    augment_on,
    memory_gib,
    quiet,
    form,
    **changes,
):
    """Train a network on every split that probes use, and test it on the same annotations.

    Interrupted and started again, it goes on where it was. The exit code is 1 where a training
    failed; the others are done all the same.
    """
    import featstore
    from probes import endtoend
    from probes.errors import WeightsError

    recipe = endtoend.preset(preset, **_given(changes))
    several = _several(device, devices, ddp)
    opened = featstore.open(store)
    annotations = opened.annotations(dataset)
    chosen = _of_repeats(splits_of(splits_file, annotations), repeats, splits_file)
    patches = _patches(opened, dataset, recipe, mpp, images)
    options = {"folder": place, "networks": save, "checkpoints": checkpoints, "logs": logs}
    options |= {"model": model, "metrics": metrics, "keep_scores": _keeps_scores(place)}
    options |= {"device": device, "devices": several, "download": download, "say": _say}
    options["settings"] = {"workers": workers, "augment_on": augment_on, "devices": ddp}
    options["settings"] |= {"memory_gib": memory_gib, "progress": not quiet}
    try:
        done = endtoend.train_all(patches, annotations, chosen, recipe, **options)
    except WeightsError as error:
        options = "--weights FILE, --download, --weights random"
        raise click.ClickException(f"{error} (here: {options})") from error
    except KeyboardInterrupt:
        kept = "what is done is kept, the same command goes on" if place or save else "nothing kept"
        _say(f"\ninterrupted: {kept}")
        raise SystemExit(INTERRUPTED) from None
    emit(_shown(done), form, rows=done.to_frame())
    if place and len(done):
        _say(f"results: {place}")
    if done.failed:
        raise click.ClickException(_not_done(done.failed, len(chosen)))


def _say(line):
    click.echo(line, err=True)


def _given(changes):
    """Fields of the recipe that were given, as it names them."""
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("pretrained") == "random":
        given["pretrained"] = None
    return given


def _several(device, devices, ddp):
    """Names of several devices, where these are asked for."""
    if devices is None:
        return ()
    if device != "auto" or ddp > 1:
        raise click.UsageError("give one of --device, --devices and --ddp")
    names = [name.strip() for name in devices.split(",")]
    return tuple(f"cuda:{name}" if name.isdecimal() else name for name in names)


def _of_repeats(splits, repeats, path):
    chosen = tuple(split for split in splits if not repeats or split.repeat in repeats)
    if not chosen:
        raise click.ClickException(
            f"{path} has no repeat {', '.join(map(str, repeats))}; it holds 0 to "
            f"{splits[-1].repeat}"
        )
    return dataclasses.replace(splits, members=chosen)


def _patches(opened, dataset, recipe, mpp, images):
    """Patches out of the cache where it holds them, else cut from the images, and which."""
    from featstore.patches import Patches, patches_of

    px, mpp = recipe.source_px, mpp or paper_mpp(opened, dataset)
    patches = patches_of(opened, dataset, patch_px=px, mpp=mpp, images=images)
    if isinstance(patches, Patches) and images is None and dataset in opened.cached_datasets():
        cut = f"--patch-px {px}" + (f" --mpp {mpp:g}" if mpp is not None else "")
        _say(
            f"the patch cache of {dataset!r} does not hold all patches of {px} px that this "
            f"training needs; they are cut from the images ('featstore cut {cut}' makes them once)"
        )
    return patches


def _keeps_scores(place):
    """Whether per-annotation scores can be kept, which one file of rows cannot."""
    if place is None or os.path.splitext(place)[1] in (".csv", ".parquet"):
        return False
    if importlib.util.find_spec("pyarrow") is None:
        _say(
            "per-annotation scores are not kept without pyarrow: pip install "
            "'featstore-probes[exchange]'"
        )
        return False
    return True


def _shown(done):
    """Means over repeats, as those of probes are shown."""
    import probes

    domains = {row["experiment"] for row in done.rows} == {"cross_domain"}
    kind = probes.DomainMatrix if domains else probes.LearningCurve
    return kind(done.rows).summary()


def _not_done(failed, n):
    """Say which trainings failed; why has been said."""
    names = "; ".join(name for name, _ in failed)
    return f"{len(failed)} of {n} trainings failed ({names}); all others are done and kept"


COMMANDS = {"train": train}
