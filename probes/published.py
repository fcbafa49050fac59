"""Numbers that others have published, to stand beside ours: other runs, on other draws.

They are facts of the papers that are named, kept as package data, and enter no computation here.
"""

import csv
from dataclasses import dataclass

from probes.errors import ProbesError

__all__ = ["PUBLISHED", "PublishedTable", "published"]


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Parameters
    ----------
    file : str
        CSV in the folder ``probes/data``: ``model``, as the paper names it, then numbers.
    source : str
        Paper and table.
    note : str
        Why its numbers are not expected to be equal to ours.
    keys : dict of str to str
        Names in the paper by those that models have here.
    """

    file: str
    source: str
    note: str
    keys: dict


PUBLISHED = {
    "ganz2024-table2": PublishedTable(
        file="ganz2024_table2.csv",
        source=(
            "Ganz et al., Is Self-Supervision Enough? Benchmarking Foundation Models Against "
            "End-to-End Training for Mitotic Figure Classification, Table 2"
        ),
        note=(
            "another run, on MIDOG 2022: the authors' probe and network saw other draws, and "
            "which values its standard deviations are over is not said"
        ),
        keys={
            "prov-gigapath": "Prov-GigaPath",
            "h-optimus-0": "H-optimus-0",
            "virchow": "Virchow",
            "virchow2": "Virchow2",
            "uni": "UNI",
            "phikon": "Phikon",
            "vit-h-imagenet": "ViT-H ImageNet",
            "resnet50-imagenet": "ResNet50 ImageNet",
            "end-to-end resnet50": "End-To-End ResNet50",
        },
    )
}


def published(name):
    """Return published numbers as a table.

    Parameters
    ----------
    name : str
        'ganz2024-table2': AUROC in domain and out of domain, mean and standard deviation, of nine
        models on MIDOG 2022.

    Returns
    -------
    DataFrame
        Columns model (the name that results have here), published_as (in the paper), those of the
        published table, and source. A model of the registry that is not there has no published
        number; neither has another view of one that is, such as 'virchow2:class'.

    Raises
    ------
    ProbesError
        If there is no such table.

    Examples
    --------
    >>> table = published("ganz2024-table2").set_index("model")
    >>> float(table.loc["uni", "auroc_out_of_domain_mean"]), table.loc["uni", "published_as"]
    (0.64, 'UNI')
    """
    import pandas as pd

    if name not in PUBLISHED:
        raise ProbesError(
            f"no published table {name!r} is kept here; give one of {', '.join(PUBLISHED)}"
        )
    table = PUBLISHED[name]
    names_here = {name: key for key, name in table.keys.items()}
    rows = [
        {"model": names_here[row["model"]], "published_as": row["model"]}
        | {column: float(number) for column, number in row.items() if column != "model"}
        | {"source": table.source}
        for row in _read(table.file)
    ]
    return pd.DataFrame(rows)


def _read(file):
    from importlib.resources import files

    text = files("probes").joinpath("data", file).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
