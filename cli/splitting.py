"""The verb split."""

import click

from featstore_cli.options import (
    as_sizes,
    checked_place,
    dataset_option,
    format_options,
    seed_option,
    store_argument,
)
from featstore_cli.render import emit

share = click.FloatRange(min=0, max=1, max_open=True)
RULES = ("monte-carlo", "grouped", "single-domain", "leave-one-domain-out", "predefined")


def _as_names(ctx, param, pairs):
    """Parse 'NAME=PART' of --map-part."""
    if not pairs:
        return None
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=PART, such as extra=test")
    return dict(pair.rsplit("=", 1) for pair in pairs)


@click.command()
@store_argument
@dataset_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True),
    callback=checked_place,
    required=True,
    help="File to write: Parquet where it ends so, else JSON.",
)
@click.option(
    "--preset",
    metavar="NAME",
    help="An experiment by name: ganz2024-sizes, ganz2024-domains or ganz2024-sizes-by-slide.",
)
@click.option(
    "--rule",
    type=click.Choice(RULES),
    help="How to draw [default: monte-carlo; grouped with --group; predefined with --column or "
    "--file].",
)
@click.option("--repeats", type=click.IntRange(min=1), help="Draws [default: 5; predefined: 1].")
@click.option("--test", type=share, help="Share of all, or of the training domains [default: 0.2].")
@click.option("--val", type=share, help="Share of the training draw [default: 0.2].")
@click.option(
    "--train",
    callback=as_sizes,
    help="Shares of the rest, separated by commas [default: 0.001,0.01,0.1,1; predefined: 1].",
)
@click.option("--group", help="Column whose values stay in one part, such as slide.")
@click.option("--stratify", metavar="COLUMN", help="label, or a column whose values keep shares.")
@click.option(
    "--one-class",
    type=click.Choice(["refuse", "redraw", "keep"]),
    help="Where a class is missing in a training draw [default: refuse].",
)
@click.option("--not-nested", is_flag=True, help="Draw every size from scratch.")
@click.option("--column", help="Of the domains [default: domain], or, predefined, of the parts.")
@click.option("--file", type=click.Path(), help="Predefined: CSV that names parts.")
@click.option("--key", metavar="COLUMN", help="Of --file: which annotation or slide.")
@click.option("--part", metavar="COLUMN", help="Of --file: train, val or test.")
@click.option("--by", metavar="COLUMN", help="Of the dataset: what the key names.")
@click.option(
    "--map-part",
    "names",
    multiple=True,
    callback=_as_names,
    metavar="NAME=PART",
    help="What else parts are called; again for more. NAME= leaves a part out.",
)
@click.option(
    "--unknown",
    type=click.Choice(["refuse", "ignore"]),
    help="Where --file names what the dataset does not have [default: refuse].",
)
@seed_option
@format_options
def split(store, dataset, out, preset, rule, not_nested, seed, form, **options):
    """Draw train, validation and test annotations of a dataset in STORE into a file."""
    import featstore
    import probes

    given = {name: value for name, value in options.items() if value is not None}
    if not_nested:
        given["nested"] = False
    if preset and (rule or set(given) - {"one_class"}):
        raise click.UsageError(
            "--preset says all but --one-class and --seed; leave out the other options"
        )
    rule = rule or _rule_of(given)
    maker = getattr(probes, rule.replace("-", "_"))
    _check_options(maker, rule, given)
    annotations = featstore.open(store).annotations(dataset)
    if preset:
        splits = probes.preset(preset, annotations, **given, seed=seed)
    else:
        splits = maker(annotations, **given, seed=seed)
    splits.save(out)
    table = splits.to_frame()
    emit(_shown(table), form, rows=table)
    click.echo(f"splits: {out}", err=True)


def _rule_of(given):
    if "file" in given or "column" in given:
        return "predefined"
    return "grouped" if "group" in given else "monte-carlo"


def _check_options(maker, rule, given):
    """Refuse options that a rule does not take."""
    import inspect

    others = [name for name in given if name not in inspect.signature(maker).parameters]
    if others:
        name = {"nested": "not-nested", "names": "map-part"}.get(others[0], others[0])
        raise click.UsageError(
            f"--{name.replace('_', '-')} is not an option of the rule {rule}; leave it out, or "
            "give another --rule"
        )


def _shown(table):
    """Columns for people: domains and redraws where there are any, and digests in short."""
    columns = ["repeat", "size", "n_train", "n_val", "n_test", "digest"]
    if table["train_domain"].any():
        columns[1] = "train_domain"
    if table["redraws"].any():
        columns.insert(-1, "redraws")
    return table[columns].assign(digest=table["digest"].str[:15])


COMMANDS = {"split": split}
