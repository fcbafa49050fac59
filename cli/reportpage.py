"""The page of a report: what the store knows of models and datasets, around what results say."""

import json
import shlex
from datetime import UTC, datetime
from functools import partial

from featstore_cli.render import counts_of

__all__ = ["report_of"]

SHOWN_DIGEST = len("sha256:") + 16


def report_of(opened, found):
    """Make the page out of a store and a folder of results.

    Parameters
    ----------
    opened : featstore.Store
        Where models and datasets of the results are looked up; what is not there is said to be.
    found : probes.report.ResultFolder
        What the folder holds.

    Returns
    -------
    probes.report.Report
    """
    from featstore.version import __version__
    from probes import report

    names = ", ".join(sorted({row["dataset"] for row in found.results.rows}))
    table, remarks = found.tables.get, found.remarks
    sections = (
        _compared(opened, found),
        report.sizes_section(found.results),
        report.domains_section(found.results),
        report.comparison_section(table("comparison"), remarks["comparison"]),
        report.audit_section(table("audit"), table("audit-by-domain"), remarks["audit"]),
        report.leakage_section(table("leakage"), table("leakage-summary"), remarks["leakage"]),
        report.domain_probe_section(table("domain-probe"), remarks["domain-probe"]),
        report.warnings_section(found.results, _remarks(opened, found)),
        _again(opened, found),
    )
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, featstore {__version__}"
    return report.Report(f"Encoders on {names}", f"{opened.path}, {found.path}; {made}", sections)


# ---- what was compared


def _compared(opened, found):
    from probes.report import Section, Table, Text

    trainings = _trainings(found.results)
    parts = [Text(_in_words(found.results))]
    caption = "Models: what they are, as the store has it, and what was fitted on them."
    parts.append(Table(_models(opened, trainings), caption))
    parts += [_dataset(opened, name) for name in dict.fromkeys(trainings["dataset"])]
    if found.splits:
        caption = "Splits: the file, the rule, and the digest over all that it holds."
        parts.append(Table(_splits(found.splits), caption))
    else:
        parts.append(
            Text(
                "Files of the splits are not among the results; each row of them names "
                "its split by digest."
            )
        )
    return Section("compared", "What was compared", tuple(parts))


def _in_words(results):
    frame = results.to_frame()
    n_trainings = len(frame.drop_duplicates(["model", "encoder", "recipe", "experiment", "split"]))
    return (
        f"Models: {frame['model'].nunique()}; datasets: {frame['dataset'].nunique()}; trainings: "
        f"{n_trainings:,}; splits: {frame['split'].nunique():,}; metrics: "
        f"{', '.join(dict.fromkeys(frame['metric']))}. Models with results on the same split were "
        "trained and tested on the same annotations."
    )


def _trainings(results):
    """One row per model, dataset, encoder and recipe."""
    frame = results.to_frame()
    return frame.drop_duplicates(["model", "dataset", "encoder", "recipe"])


def _models(opened, trainings):
    import pandas as pd

    return pd.DataFrame([_model(opened, row) for row in trainings.to_dict("records")])


def _model(opened, row):
    """Say what the store knows of the model of a row."""
    provenance = _provenance(opened, row)
    known = {} if provenance is None else _specification(provenance)
    cells = {
        "model": row["model"],
        "dataset": row["dataset"],
        "digest": row["encoder"][:SHOWN_DIGEST] or "–",
        "fitted": row["recipe"] or "–",
    }
    return cells | {name: known.get(name, "–") for name in SPECIFICATION}


SPECIFICATION = ("dim", "pooling", "weights", "precision", "um/px", "device", "extracted")


def _specification(provenance):
    spec = provenance.spec
    return {
        "dim": spec.dim,
        "pooling": spec.pooling,
        "weights": f"{spec.weights[:16]} ({spec.weights_from})",
        "precision": spec.precision,
        "um/px": "as they are" if spec.mpp is None else f"{spec.mpp:g}",
        "device": str(provenance.run.get("device", "–")),
        "extracted": provenance.created[:10],
    }


def _provenance(opened, row):
    """How embeddings of a row were made; None where the store has none of that name."""
    from featstore.errors import FeatstoreError

    try:
        return opened.embeddings(row["model"], row["dataset"]).provenance
    except FeatstoreError:
        return None


def _dataset(opened, name):
    from featstore.errors import FeatstoreError
    from probes.report import Note, Table

    try:
        annotations = opened.annotations(name)
    except FeatstoreError as error:
        return Note(f"The store does not hold the dataset: {error}.")
    source = opened.source(name)
    caption = (
        f"{name}: {len(annotations.ids):,} annotations, read from {source.get('file', '?')} "
        f"(SHA-256 {source.get('sha256', '?')[:16]}); digest {annotations.digest[:SHOWN_DIGEST]}."
    )
    return Table(counts_of(annotations, images=True), caption)


def _splits(splits):
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "file": file,
                "dataset": each.dataset,
                "rule": each.rule,
                "seed": each.seed,
                "options": json.dumps(each.options, ensure_ascii=False),
                "splits": len(each),
                "redrawn": sum(split.redraws for split in each),
                "digest": each.digest[:SHOWN_DIGEST],
            }
            for file, each in splits.items()
        ]
    )


# ---- warnings of the store


def _remarks(opened, found):
    """Say where results are not of what the store holds now, and what was left aside."""
    trainings = _trainings(found.results).to_dict("records")
    checks = (partial(_other_encoder, opened), partial(_other_labels, opened))
    said = [check(row) for row in trainings for check in checks]
    aside = [f"Left aside: {line}." for line in found.left_aside]
    return [*dict.fromkeys(line for line in said if line), *aside]


def _other_encoder(opened, row):
    provenance = _provenance(opened, row)
    if provenance is None:
        return ""
    digest = opened.embeddings(row["model"], row["dataset"]).digest
    if digest == row["encoder"]:
        return ""
    return (
        f"Results of {row['model']} on {row['dataset']} are of the encoder "
        f"{row['encoder'][:SHOWN_DIGEST] or 'of no digest'}; the store now holds "
        f"{digest[:SHOWN_DIGEST]}."
    )


def _other_labels(opened, row):
    from featstore.errors import FeatstoreError

    try:
        digest = opened.annotations(row["dataset"]).digest
    except FeatstoreError:
        return ""
    if digest == row["dataset_digest"]:
        return ""
    return (
        f"Results of {row['model']} on {row['dataset']} are of the annotations "
        f"{row['dataset_digest'][:SHOWN_DIGEST]}; the store now holds {digest[:SHOWN_DIGEST]}."
    )


# ---- how to make it again


def _again(opened, found):
    from probes.report import Code, Section, Table, Text

    trainings = _trainings(found.results).to_dict("records")
    made = {(row["model"], row["dataset"]): _provenance(opened, row) for row in trainings}
    made = {name: provenance for name, provenance in made.items() if provenance}
    parts = (
        Text(
            "Splits come from their seed and results from the splits: the same store gives the "
            "same numbers, to the last digits that a solver and a machine leave open. Embeddings "
            "come from their weights and images; where weights are a file, it is named with the "
            "model above."
        ),
        Code("\n".join(_commands(opened, found, made))),
        Table(_versions(made), "Versions of what extracted, and of what made this page."),
    )
    return Section("again", "How to make it again", parts)


def _commands(opened, found, made):
    """Yield commands, each once, from embeddings to this page."""
    store, folder = shlex.quote(str(opened.path)), shlex.quote(str(found.path))
    yield from dict.fromkeys(
        f"featstore {_origin(store, model, provenance)} --dataset {shlex.quote(dataset)}"
        for (model, dataset), provenance in made.items()
    )
    for file, splits in found.splits.items():
        if file.endswith("sizes.json"):
            yield f"featstore reproduce {store} --out {folder} {_split_options(splits)}"
    yield f"featstore report {store} --results {folder}"


def _origin(store, model, provenance):
    """Say what brought embeddings into the store: an extraction or an import."""
    spec, name = provenance.spec, model.partition(":")[0]
    if "imported" in provenance.run:
        file = provenance.run["imported"].get("file", "FILE")
        return f"import {store} {shlex.join(['--model', name, '--from', str(file)])}"
    return f"extract {store} {shlex.join(_model_options(spec, name))}"


def _model_options(spec, name):
    """Name a model as 'extract' is told it."""
    from featstore.encoders.registry import ENCODERS

    known = spec.key in ENCODERS
    words = ["--model", spec.key if known else f"timm:{spec.architecture}"]
    if spec.weights.startswith("random:"):
        words += ["--random-weights", spec.weights.removeprefix("random:")]
    elif not known:
        words += ["--weights", "FILE"]
    if not known:
        words += ["--name", name]
    mpp = [] if spec.mpp is None else ["--mpp", f"{spec.mpp:g}"]
    return [*words, "--precision", spec.precision, *mpp]


def _split_options(splits):
    """Say with which options splits like these are drawn."""
    options, words = splits.options, ["--dataset", splits.dataset, "--seed", str(splits.seed)]
    if "repeats" in options:
        words += ["--repeats", str(options["repeats"])]
    if "train" in options:
        words += ["--train", ",".join(f"{size:g}" for size in options["train"])]
    return shlex.join(words)


def _versions(made):
    import pandas as pd

    from featstore.store.provenance import versions

    rows = [{"of": model} | provenance.versions for (model, _), provenance in made.items()]
    frame = pd.DataFrame([*rows, {"of": "this page"} | versions()])
    return frame.drop_duplicates().fillna("–")
