"""The verb verify."""

import json
from collections import Counter

import click

from featstore_cli.options import format_options, store_argument
from featstore_cli.render import emit


@click.command()
@store_argument
@click.option(
    "--repair",
    is_flag=True,
    help="Drop bad chunks of embeddings, which 'extract' makes again, and leftovers of dead runs.",
)
@format_options
@click.pass_context
def verify(ctx, store, repair, form):
    """Check every byte of STORE against its checksums and the rules of the format.

    One line for each finding. The exit code is 1 where one of them is an error.
    """
    from featstore.store.verify import examine

    exam = examine(store, repair=repair)
    if form is not None:
        emit(_frame(exam.findings, form), form)
    else:
        for finding in exam.findings:
            click.echo(finding)
        click.echo(_summary(store, exam))
    if any(finding.severity == "error" for finding in exam.findings):
        ctx.exit(1)


def _frame(findings, form):
    """One row for each finding, all annotation IDs in it; in CSV these are a JSON list."""
    import pandas as pd

    columns = ["severity", "rule", "place", "chunk", "ids", "message"]
    rows = [[getattr(finding, column) for column in columns] for finding in findings]
    frame = pd.DataFrame(rows, columns=columns).astype({"chunk": "Int64"})
    if form == "csv":
        frame["ids"] = [json.dumps(list(finding.ids)) for finding in findings]
    return frame


def _summary(store, exam):
    counts = Counter(finding.severity for finding in exam.findings)
    plural = {"error": "errors", "dropped": "dropped", "note": "notes"}
    found = [
        f"{counts[one]} {one if counts[one] == 1 else more}"
        for one, more in plural.items()
        if counts[one]
    ]
    size = f"{exam.n_arrays:,} arrays, {exam.n_chunks:,} chunks, {exam.n_bytes / 2**20:,.1f} MiB"
    return f"{store}: everything checked ({size}): {', '.join(found) or 'no findings'}"


COMMANDS = {"verify": verify}
