"""The verb extract."""

import contextlib
import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import click

from featstore_cli.options import (
    checked_place,
    cutting_options,
    dataset_option,
    device_option,
    paper_mpp,
    precision_option,
    quiet_option,
    store_argument,
    weights_options,
)

# As a shell reports a process that a signal ended: 128 and the signal's number.
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

ENDINGS = (".safetensors", ".bin", ".pth", ".pt")  # of checkpoints

# Shares of the time above which a user is told what would help.
LONG_WAIT, LONG_STALL = 0.2, 0.1


@click.command()
@store_argument
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    help="A registered encoder, timm:NAME, or file:PATH of a network that 'train' kept; given more "
    "than once, each patch is read once.",
)
@dataset_option
@weights_options
@click.option("--name", "key", help="Name in the store [default: the encoder's].")
@precision_option
@cutting_options
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that read patches; 0 reads in a thread [default: 0 for cached patches, else "
    "one for each processor, up to 8].",
)
@device_option
@click.option(
    "--devices",
    metavar="0,1,...",
    help="Several GPUs of this machine, in place of --device: each embeds chunks of its own.",
)
@click.option(
    "--compile",
    "compiling",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Compile the encoder: auto does where it saves more time than it takes.",
)
@click.option(
    "--exact",
    is_flag=True,
    help="Same bytes every time on the same machine: float32 unless --precision is given, "
    "deterministic algorithms, nothing compiled.",
)
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
    models,
    dataset,
    mpp,
    images,
    precision,
    batch_size,
    workers,
    device,
    devices,
    compiling,
    exact,
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

    _check_options(models, build_options)
    opened = featstore.open(store)
    if dry_run:
        for model in models:
            _say_budget(opened, model, dataset, precision, build_options)
        return
    devices = _devices(device, devices)
    exactly = exact and precision == "auto"
    building = {"device": devices[0], **build_options}
    encoders = [
        _with_precision(
            _built(model, building | {"mpp": _mpp_of(model, mpp, opened, dataset)}),
            model,
            opened,
            dataset,
            precision,
            exactly,
        )
        for model in models
    ]
    for encoder in encoders:
        _say_trained_on(encoder, opened.annotations(dataset))
    settings = {"batch_size": batch_size, "workers": workers, "progress": not quiet}
    settings |= {"devices": devices, "compiling": compiling, "exact": exact}
    settings |= {"on_start": _say_start, "on_chunk": lambda done: _log(log, done)}
    for together in _of_the_same_input(encoders):
        _extract_together(store, dataset, together, images, settings)


def _check_options(models, build_options):
    if build_options["weights"] and build_options["random_weights"] is not None:
        raise click.UsageError("give either --weights FILE or --random-weights SEED")
    if len(models) > 1 and build_options["key"]:
        raise click.UsageError("--name is for one --model; several have their own names")
    if len(models) > 1 and build_options["weights"] and not Path(build_options["weights"]).is_dir():
        raise click.UsageError(
            "with several models, --weights is a folder that holds a file for each, such as "
            f"{models[0]}.safetensors"
        )
    if len(set(models)) < len(models):
        raise click.UsageError("the same --model was given twice")


def _devices(device, devices):
    """Names of the devices asked for: numbers are GPUs."""
    from featstore.errors import require

    torch = require("torch", extra="extract", purpose="extraction")
    from featstore.encoders.build import checked_device

    if devices is None:
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        names = [automatic if device == "auto" else device]
    else:
        names = [name.strip() for name in devices.split(",")]
        names = [f"cuda:{name}" if name.isdecimal() else name for name in names]
    return [str(checked_device(name)) for name in names]


def _built(model, building):
    from featstore.encoders.build import build
    from featstore.encoders.trained import is_trained_file

    weights = building["weights"]
    if weights is not None and Path(weights).is_dir():
        weights = None if is_trained_file(model) else _file_of(model, Path(weights))
    return build(model, **building | {"weights": weights})


def _mpp_of(model, asked, opened, dataset):
    """Um per pixel of the patches of a model: what was asked, or what it was trained at."""
    from featstore.encoders.trained import is_trained_file, read_trained

    if asked is not None or not is_trained_file(model):
        return asked or paper_mpp(opened, dataset)
    own = read_trained(model).mpp
    if own is None and not opened.has_whole_patches(dataset):
        raise click.ClickException(
            f"{model} was trained on whole patch files and {dataset!r} is cut from larger images; "
            "say with --mpp how fine its patches should be"
        )
    return own


def _say_trained_on(encoder, annotations):
    """Say whose annotations a trained network has seen, if it is one, and whether of these."""
    from featstore_cli.seen import is_of

    seen = encoder.trained_on
    if seen is None:
        return
    split = f"split {seen['split'][:15]}..." if seen["split"] else "a split without digest"
    told = f"{encoder.spec.key}: trained on {seen['n_train']:,} annotations of {seen['dataset']!r}"
    if is_of(seen, annotations):
        split += "; it has seen some of these rows: probe it on that split alone"
    click.echo(f"{told}, {split}", err=True)


def _file_of(model, folder):
    """Find the file of a model in a folder of checkpoints."""
    name = model.removeprefix("timm:")
    found = [file for file in folder.iterdir() if file.stem == name and file.suffix in ENDINGS]
    if len(found) != 1:
        names = ", ".join(sorted(file.name for file in found)) or "none"
        raise click.ClickException(
            f"{folder} holds {names} for {model!r}; it needs one file such as {model}.safetensors"
        )
    return found[0]


def _with_precision(encoder, model, opened, dataset, precision, exactly):
    """Return the encoder in the precision asked for, or the best one, saying which and why."""
    from featstore.encoders.encoder import refused_in_one_line
    from featstore.encoders.precision import best_precision, recommended_precision

    if exactly:
        return encoder
    if precision != "auto":
        return encoder.at(precision)
    begun = _begun_precision(opened, dataset, encoder)
    if begun is not None:
        return encoder.at(begun)
    recommended = recommended_precision(model)
    with refused_in_one_line(encoder, encoder.device, recommended):
        choice = best_precision(encoder, recommended=recommended)
    click.echo(f"{encoder.spec.key}: {choice.precision} ({choice.reason})", err=True)
    return encoder.at(choice.precision)


def _begun_precision(opened, dataset, encoder):
    """Precision of the embeddings of that name that are there."""
    from featstore.encoders.encoder import PRECISIONS

    key = encoder.spec.key
    if (key, dataset) not in {(row.model, row.dataset) for row in opened.list()}:
        return None
    there = opened.embeddings(key, dataset).provenance.spec.precision
    return there if there in PRECISIONS else None


def _of_the_same_input(encoders):
    """Put encoders together that can share their patches."""
    groups = {}
    for encoder in encoders:
        groups.setdefault((encoder.spec.input_px, encoder.spec.mpp), []).append(encoder)
    return groups.values()


def _extract_together(store, dataset, encoders, images, settings):
    """Extract with encoders that share their patches, and say what was done."""
    import featstore
    from featstore.errors import EncoderError
    from featstore.extract import extract_many
    from featstore.patches import patches_of

    spec = encoders[0].spec
    patches = patches_of(
        featstore.open(store), dataset, patch_px=spec.input_px, mpp=spec.mpp, images=images
    )
    models = [encoder.spec.key for encoder in encoders]
    with _told_to_end() as told:
        try:
            done = extract_many(store, dataset, encoders, patches, should_stop=told, **settings)
        except KeyboardInterrupt:
            _say_interrupted(store, models, dataset)
            raise SystemExit(INTERRUPTED) from None
        except EncoderError:
            if not told():
                raise
            done = []  # processes that read patches were told too, and ended at once
    if not done or not all(of_one.complete for of_one in done):
        _say_interrupted(store, models, dataset)
        raise SystemExit(TERMINATED)
    for of_one, encoder in zip(done, encoders, strict=True):
        _say_done(of_one, encoder.spec)
    if any(of_one.rows_new for of_one in done):
        _say_where_time_went(done[0])


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
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **done.to_json()}
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:  # a log is not worth a job of hours
        click.echo(f"cannot write the log {path}: {error.strerror}; going on", err=True)


def _say_budget(opened, model, dataset, precision, build_options):
    """Print rows, bytes and files; weights are not needed for that."""
    from featstore.encoders.build import build
    from featstore.encoders.trained import is_trained_file
    from featstore.store.layout import file_budget

    seed = None if is_trained_file(model) else 0
    without = {"weights": None, "random_weights": seed, "download": False}
    encoder = build(model, **build_options | without)
    width = max(stop for _, stop in encoder.parts.values())
    dtype = "float32" if precision in ("auto", "float32") else "float16"
    rows = len(opened.annotations(dataset))
    n_bytes, n_files = file_budget(rows, width, dtype)
    size = f"{n_bytes / 2**20:,.1f} MiB in {n_files} files"
    at_most = "at most " if precision == "auto" else ""
    kept = " + ".join(encoder.parts)
    click.echo(f"{model}: {rows:,} embeddings of {width} ({kept}) as {dtype}: {at_most}{size}")


def _say_start(begun):
    if 0 < begun.rows_before < begun.rows:
        click.echo(
            f"going on where it stopped: {begun.rows_before:,} of {begun.rows:,} embeddings are "
            "there",
            err=True,
        )
    for note in begun.notes:
        click.echo(f"{begun.model}: {note}", err=True)


def _say_interrupted(store, models, dataset):
    import featstore

    rows = {(row.model, row.dataset): row.rows for row in featstore.open(store).list()}
    there = sum(rows.get((model, dataset), 0) for model in models)
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
        f"{done.wall_s:.1f} s ({done.patches_per_s:.0f} patches/s, {spec.precision})"
    )


def _say_where_time_went(done):
    """Say how long what took, and what would help where it is not the encoder."""
    spent = done.spent
    click.echo(
        f"time: {done.share('encode_s'):.0%} in the encoder, {done.share('wait_s'):.0%} waiting "
        f"for patches, {done.share('stall_s'):.0%} for the disk; beside it, reading patches took "
        f"{spent.decode_s:.1f} s and writing {spent.write_s:.1f} s",
        err=True,
    )
    if done.share("wait_s") > LONG_WAIT:
        more = "'featstore cut' them first, or more --workers"
        click.echo(f"the encoder waited for patches: {more}", err=True)
    if done.share("stall_s") > LONG_STALL:
        local = "a store on a local disk, copied later, helps"
        click.echo(f"the encoder waited for the disk: {local}", err=True)


COMMANDS = {"extract": extract}
