"""The verb compare."""

import click

from featstore_cli.options import dataset_option, format_options, seed_option, store_argument
from featstore_cli.render import emit


@click.command()
@store_argument
@click.argument("places", metavar="RESULTS...", nargs=-1, required=True, type=click.Path())
@dataset_option
@click.option("--model", "models", multiple=True, help="Only these; again for more [default: all].")
@click.option("--experiment", help="Only this one, such as learning_curve [default: all].")
@click.option("--size", "sizes", type=float, multiple=True, help="Only this size; again for more.")
@click.option("--metric", default="auroc", show_default=True, help="What is compared.")
@click.option(
    "--by",
    default="slide",
    show_default=True,
    help="Column whose values are drawn together; 'annotation' draws one by one.",
)
@click.option(
    "--domain",
    default="domain",
    show_default=True,
    help="Column that test domains are of, where there are some.",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "bh", "none"]),
    default="holm",
    show_default=True,
    help="For many comparisons.",
)
@click.option(
    "--draws", type=click.IntRange(min=2), default=1000, show_default=True, help="Of the bootstrap."
)
@seed_option
@click.option("--per-split", is_flag=True, help="One row per test part, with DeLong and bootstrap.")
@click.option(
    "--per-place",
    is_flag=True,
    help="One row per pair, in domain and out of domain, over all pairs of domains.",
)
@format_options
def compare(
    store, places, dataset, models, experiment, sizes, per_split, per_place, form, **options
):
    """Test whether models differ: every pair in RESULTS of a dataset in STORE, on equal splits.

    RESULTS are folders or files of curve, domains and train. With per-annotation scores
    (--keep-scores) each test part is tested as well as the repeats.
    """
    import featstore
    import probes

    if per_split and per_place:
        raise click.UsageError("--per-split and --per-place are two tables; give one")
    annotations = featstore.open(store).annotations(dataset)
    options["by"] = None if options["by"] == "annotation" else options["by"]
    cells = {"model": models, "experiment": experiment and [experiment], "size": sizes}
    results = _merged(places).where(**{name: value for name, value in cells.items() if value})
    found = probes.compare(results, annotations, **options)
    table = found.splits if per_split else found.places if per_place else found.repeats
    if not len(table):
        raise click.ClickException(
            "these results name no test domains; give those of 'domains', or leave out --per-place"
        )
    emit(_for_people(table), form, rows=table)
    if form is None:
        click.echo(" ".join([found.note, *_common_reason(table)]), err=True)


def _common_reason(table):
    """Why nothing at all was tested, where that is so."""
    reasons = table["reason"].unique()
    all_the_same = len(reasons) == 1 and reasons[0]
    return [f"Nothing was tested: {reasons[0]}."] if all_the_same else []


def _merged(places):
    import probes

    results = probes.Results()
    for place in places:
        results = results.merged(probes.Results.load(place))
    return results


# Said once for a table where all rows have the same, and left to --csv where it is long.
SAME = ("dataset", "experiment", "size", "train_domain", "test_domain", "reason")
LONG = ("split", "t", "delong_se")


def _for_people(table):
    """Leave out what is the same in all rows, and write numbers short."""
    same = [name for name in SAME if name in table and table[name].nunique() == 1]
    shown = table.drop(columns=[*same, *[name for name in LONG if name in table]])
    for name in shown.select_dtypes("float"):
        digits = ".2g" if "_p" in f"_{name}" else ".3f"
        if name != "size":
            shown[name] = [format(value, digits) for value in shown[name]]
            shown[name] = shown[name].replace("nan", "-")
    return shown


COMMANDS = {"compare": compare}
