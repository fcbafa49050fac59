"""What tests of splits share: parts as sets, tables in another order, and MIDOG++."""

import json
from dataclasses import replace

import numpy as np

from tests.test_probes.conftest import Table


def parts(split):
    """IDs of the three parts."""
    return [set(np.asarray(part).tolist()) for part in (split.train, split.val, split.test)]


def is_disjoint(split):
    """Whether no annotation is in two parts."""
    return len(set().union(*parts(split))) == sum(map(len, parts(split)))


def column_of(table, name):
    """Value of a column, or the label, by annotation ID."""
    values = table.labels if name == "label" else table.column(name)
    return dict(zip(table.ids.tolist(), values.tolist(), strict=True))


def counts(ids, value_of):
    """How many of these annotations have each value."""
    names = sorted(set(value_of.values()))
    found = [value_of[each] for each in np.asarray(ids).tolist()]
    return np.array([found.count(name) for name in names])


def in_another_order(table, seed=1):
    """Return the same annotations, with the digest that another order of rows has."""
    rows = np.random.default_rng(seed).permutation(len(table.ids))
    columns = {name: values[rows] for name, values in table.columns.items()}
    digest = f"sha256:{seed}"
    return replace(
        table, ids=table.ids[rows], labels=table.labels[rows], columns=columns, digest=digest
    )


def without(table, n):
    """Return the table without its first rows."""
    columns = {name: values[n:] for name, values in table.columns.items()}
    return replace(
        table, ids=table.ids[n:], labels=table.labels[n:], columns=columns, digest="sha256:fewer"
    )


def read_midogpp(folder):
    """Read the 26,286 annotations of MIDOG++."""
    content = json.loads((folder / "annotations" / "MIDOG++.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    rows = content["annotations"]
    return Table(
        np.array([row["id"] for row in rows]),
        np.where([row["category_id"] == 1 for row in rows], "mitotic figure", "look-alike"),
        {
            "slide": np.array([images[row["image_id"]]["file_name"][:-5] for row in rows]),
            "domain": np.array([images[row["image_id"]]["tumor_type"] for row in rows]),
        },
        name="midog++",
    )
