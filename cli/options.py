"""Options that several verbs share."""

import math
import os

import click

__all__ = [
    "UmPerPixel",
    "as_sizes",
    "checked_place",
    "checked_results",
    "cutting_options",
    "dataset_option",
    "device_option",
    "format_options",
    "keep_scores_option",
    "metric_option",
    "model_option",
    "objective_options",
    "paper_mpp",
    "plot_option",
    "precision_option",
    "quiet_option",
    "repeats_option",
    "results_option",
    "seed_option",
    "splits_option",
    "store_argument",
    "weights_options",
]

# Ganz et al., section 3: 224 px at 0.25 um/px for every encoder.
PAPER_MPP = 0.25

store_argument = click.argument("store", type=click.Path())
dataset_option = click.option("--dataset", required=True, help="Name of the dataset in the store.")
model_option = click.option(
    "--model", required=True, help="Name of the model in the store, or NAME:POOLING."
)


ENDINGS = {"plot": (".png", ".pdf", ".svg"), "sheet": (".png", ".jpg", ".jpeg")}


def checked_place(ctx, param, path):
    """Refuse, before any work is done, a file that could not be written after it."""
    if path is None:
        return None
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise click.ClickException(f"cannot write {path}: its folder does not exist; make it first")
    endings = ENDINGS.get(param.name, ("",))
    if not path.endswith(endings):
        raise click.ClickException(
            f"cannot draw {path}: give a name that ends in {', '.join(endings[:-1])} or "
            f"{endings[-1]}"
        )
    return path


plot_option = click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    help="Draw into this PNG, PDF or SVG.",
)


def checked_results(ctx, param, path):
    """Refuse, before any work is done, a place in which results could not be kept."""
    return None if path is None else checked_place(ctx, param, path.rstrip("/") or path)


results_option = click.option(
    "--results",
    "place",
    type=click.Path(writable=True),
    callback=checked_results,
    help="Keep all rows in this folder, or in one file that ends in .csv or .parquet; what is "
    "there and equal is not fitted again.",
)
metric_option = click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=["auroc"],
    show_default=True,
    help="What is computed of each test part; again for more.",
)
keep_scores_option = click.option(
    "--keep-scores",
    is_flag=True,
    help="Keep what is said of each annotation too, in the folder of --results.",
)
quiet_option = click.option("--quiet", is_flag=True, help="No progress bar.")
repeats_option = click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True)
seed_option = click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the forward pass; auto takes the fastest that leaves embeddings as they are.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps or auto."
)


def splits_option(*, required, help="From 'split'."):
    """Give a verb --splits, which becomes the argument ``splits_file``."""
    return click.option("--splits", "splits_file", type=click.Path(), required=required, help=help)


class UmPerPixel(click.FloatRange):
    """A finite number of um per pixel above 0."""

    def __init__(self):
        super().__init__(min=0, min_open=True)

    def convert(self, value, param, ctx):
        """Refuse what FloatRange lets through: nan and inf."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number of um per pixel, such as 0.25", param, ctx)
        return number


def weights_options(command):
    """Give a verb what ``build`` is told beside the model: weights, and what is kept of a patch.

    They become the arguments ``weights``, ``allow_other_weights``, ``random_weights``, ``pooling``,
    ``parts`` and ``download``.
    """
    for option in reversed(WEIGHTS_OPTIONS):
        command = option(command)
    return command


WEIGHTS_OPTIONS = (
    click.option("--weights", type=click.Path(), help="Checkpoint: safetensors, or torch tensors."),
    click.option(
        "--allow-other-weights",
        is_flag=True,
        help="Take a checkpoint whose SHA-256 is not the registry's.",
    ),
    click.option(
        "--random-weights",
        type=click.IntRange(0, 2**63 - 1),
        metavar="SEED",
        help="Random weights, for comparison.",
    ),
    click.option(
        "--pooling",
        metavar="PARTS",
        help="average, or of class, mean, registers and head what is wanted, with + between them "
        "[default: the encoder's own].",
    ),
    click.option(
        "--parts",
        metavar="PARTS",
        help="What is kept of a patch beside it, in the same words [default: class+mean, where the "
        "encoder has both].",
    ),
    click.option(
        "--download",
        is_flag=True,
        help="Get weights that are not here from the hub, and keep them.",
    ),
)


def cutting_options(command):
    """Give a verb --mpp and --images: how, and from where, patches are cut."""
    command = click.option(
        "--images", type=click.Path(), help="Folder of the images, where they have moved."
    )(command)
    return click.option(
        "--mpp",
        type=UmPerPixel(),
        help=f"Um per pixel of the patches [default: {PAPER_MPP}; patch files are taken whole].",
    )(command)


def paper_mpp(store, dataset):
    """Um per pixel where none is asked for: the paper's, or None for whole patch files."""
    return None if store.has_whole_patches(dataset) else PAPER_MPP


def format_options(command):
    """Give a verb --csv and --json, which become the argument ``form``."""
    for form in ("json", "csv"):
        command = click.option(
            f"--{form}", "form", flag_value=form, help=f"Print the table as {form.upper()}."
        )(command)
    return command


class Strength(click.ParamType):
    """A number above 0, several with commas between them, or 'uni'."""

    name = "number|grid|uni"

    def convert(self, value, param, ctx):
        """Turn a text into what probes take as C."""
        if value == "uni" or not isinstance(value, str):
            return value
        try:
            numbers = [float(part) for part in value.split(",")]
        except ValueError:
            numbers = [0.0]
        if not all(0 < number < math.inf for number in numbers):
            self.fail(f"{value!r} is no number above 0, no grid such as 0.01,0.1,1 and not 'uni'")
        return numbers if len(numbers) > 1 else numbers[0]


def objective_options(command):
    """Give a verb the options of a probe: --objective, --C and --solver."""
    command = click.option(
        "--solver",
        type=click.Choice(["lbfgs", "sklearn", "cuml"]),
        default="lbfgs",
        show_default=True,
        help="What minimises it: lbfgs all fits at once, the others one by one; cuml on CUDA.",
    )(command)
    command = click.option(
        "--C",
        "C",
        type=Strength(),
        help="Inverse strength of the penalty: a number, uni (dim x classes / 100), or a grid such "
        "as 0.01,0.1,1, of which validation chooses [default: uni for uni, 1 for l2].",
    )(command)
    return click.option(
        "--objective",
        type=click.Choice(["uni", "l2"]),
        default="uni",
        show_default=True,
        help="Loss of the probe.",
    )(command)


def as_sizes(ctx, param, text):
    """Parse '0.01,0.1,1' into numbers in (0, 1]."""
    if text is None:
        return None
    try:
        sizes = sorted({float(size) for size in text.split(",")})
    except ValueError:
        sizes = [0.0]
    if not all(0 < size <= 1 for size in sizes):
        raise click.BadParameter(f"{text!r} is not a list of shares such as 0.01,0.1,1")
    return sizes
