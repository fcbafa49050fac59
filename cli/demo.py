"""The verb demo: every step a user takes, on data that the program makes itself."""

import json
import shlex
from pathlib import Path

import click

# A small network on small patches, from random weights: 2 cores train it in ten seconds.
RECIPE = (
    "--network timm:test_efficientnet --weights random --patch-px 64 --batch-size 16 "
    "--learning-rate 0.003 --quiet"
)
SIZES = (0.05, 0.2, 1)


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default="featstore-demo",
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@click.option("--quick", is_flag=True, help="Fewer images and smaller encoders: seconds.")
def demo(out, quick):
    """Make a small dataset and take it all the way: store, embeddings, probes, network, plots.

    Each step is printed as the command that does it. Run again, it goes on with what is there.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _make_data(folder, quick)
    for step in _steps(folder, quick):
        _run(step)
    click.echo(_farewell(folder))


def _make_data(folder, quick):
    from featstore.datasets.demo import make_demo

    if _is_made(folder / "data"):
        click.echo(f"{folder}/data is there; going on with it (delete {folder} to start afresh)")
        return
    click.echo(f"making images and annotations in {folder}/data")
    size = {"images_per_domain": 2, "cells_per_image": (24, 30)} if quick else {}
    made = make_demo(folder / "data", **size)
    click.echo(f"{made.n_annotations} annotations on {made.n_images} tiled TIFF images")


def _is_made(data):
    """Whether the annotations and every image that they name are there."""
    annotations = data / "midog_demo.json"
    if not annotations.exists():
        return False
    images = json.loads(annotations.read_text(encoding="utf-8"))["images"]
    return all((data / "images" / image["file_name"]).exists() for image in images)


def _steps(folder, quick):
    """Yield the demo's commands, leaving out what is done."""
    here = shlex.quote(str(folder))
    store, to_demo, splits = f"{here}/demo.zarr", "--dataset demo", f"--splits {here}/splits.json"
    if not (folder / "demo.zarr").exists():
        data = f"{here}/data"
        yield f"add {store} demo --annotations {data}/midog_demo.json --images {data}/images"
    if not quick:
        yield f"extract {store} --model efficientnet-lite0 {to_demo}"
    vit = "--model timm:test_vit --random-weights 0 --pooling class+mean"
    yield f"extract {store} {vit} {to_demo}"
    yield f"list {store}"
    yield f"split {store} {to_demo} --train {','.join(map(str, SIZES))} --out {here}/splits.json"
    repeats, epochs = ((0,), 1) if quick else ((0, 1, 2), 5)
    chosen = " ".join(f"--repeat {repeat}" for repeat in repeats)
    recipe = f"{RECIPE} --epochs {epochs} --results {here}/end_to_end.csv"
    yield f"train {store} {to_demo} {splits} {chosen} {recipe}"
    results = f"--beside {here}/end_to_end.csv --results {here}/learning_curve.csv"
    yield f"curve {store} {to_demo} {splits} {results} --plot {here}/learning_curve.png"
    yield f"domains {store} {to_demo} --results {here}/domains.csv --plot {here}/domains.png"
    yield f"report {store} --results {here} --out {here}/report.html"


def _run(command):
    from featstore_cli.main import featstore

    click.secho(f"\n$ featstore {command}", bold=True)
    featstore.main(args=shlex.split(command), standalone_mode=False)


def _farewell(folder):
    return f"""
Everything is in {folder}/
  data/                images (tiled TIFF) and annotations (MIDOG-format JSON)
  demo.zarr            the store: annotations and embeddings
  splits.json          which cells train, validate and test
  learning_curve.png   AUROC by size of the training set
  domains.png          AUROC by training and test domain
  *.csv                the results behind them
  report.html          all of it on one page

From Python:
  import featstore, probes
  store = featstore.open("{folder}/demo.zarr")
  ann, emb = store.annotations("demo"), store.embeddings(store.models("demo")[0], "demo")
  probes.learning_curve(emb, ann, probes.load_splits("{folder}/splits.json")).plot()"""


COMMANDS = {"demo": demo}
