"""A folder of results: what is in it, of any number of datasets, and what was left aside.

Files may come from other labs. Those of results are read as results; tables are read by their
names; of all else nothing is believed.
"""

from dataclasses import dataclass, field
from pathlib import Path

from probes.errors import ProbesError, ResultsError
from probes.resultfiles import is_there
from probes.results import Results
from probes.splits import load_splits

__all__ = ["TABLES", "ResultFolder", "write_remarks", "write_table", "write_text"]

MOST_REMARKS = 40  # lines of a file of remarks; more are no remarks

AGAIN = "delete it, and 'featstore reproduce' makes it again"
DIFFERENCE = ("auroc_difference", "auroc_difference_se")

# Tables beside the results: by name of the file, columns of text and columns of numbers.
TABLES = {
    "comparison": (
        ("dataset", "experiment", "train_domain", "test_domain", "first", "second", "reason"),
        ("size", "first_mean", "second_mean", "difference", "sd", "repeats", "p", "p_adjusted"),
    ),
    "audit": (("dataset", "finding", "against"), ("size", "share")),
    "audit-by-domain": (("dataset", "finding", "against", "domain"), ("share",)),
    "leakage": (
        ("dataset", "experiment", "model", "metric", "encoder", "recipe"),
        ("repeat", "size", "value", "n_train", "n_test"),
    ),
    "leakage-summary": (
        ("dataset", "model", "design"),
        ("size", "n_train", "n_test", "auroc_mean", "auroc_sd", *DIFFERENCE),
    ),
    "domain-probe": (
        ("dataset", "model", "target"),
        ("classes", "n_train", "n_test", "repeats", "auroc_mean", "auroc_sd"),
    ),
}
MOST_OF_A_LINE = 2_000
HEADING = {"model", "dataset", "split", "value"}  # what a CSV has that is meant to be results
PLACES_OF_THEIR_OWN = ("leakage", "domain-probe")  # results of other experiments


@dataclass(frozen=True, eq=False)
class ResultFolder:
    """What a folder holds, and the folders in it.

    Parameters
    ----------
    path : Path
    results : Results
        Of all files of results, put together.
    splits : dict of str to Splits
        By the file's name.
    tables : dict of str to DataFrame
        By the names of :data:`TABLES`; one that is not there is not in it.
    remarks : dict of str to list of str
        What was said beside the tables, by their names.
    left_aside : tuple of str
        Files that are not what their names say, and why.
    """

    path: Path
    results: Results
    splits: dict = field(default_factory=dict)
    tables: dict = field(default_factory=dict)
    remarks: dict = field(default_factory=dict)
    left_aside: tuple = ()

    @classmethod
    def read(cls, path):
        """Read a folder that :func:`probes.report.reproduce` filled, or any with results.

        Raises
        ------
        ResultsError
            If there is no such folder, no result in it, or a table is damaged.
        """
        path = Path(path)
        if not path.is_dir():
            raise ResultsError(f"there is no folder {path}; give one that holds results")
        inner = sorted(each for each in path.iterdir() if each.is_dir())
        places = [path, *(each for each in inner if each.name not in PLACES_OF_THEIR_OWN)]
        results, left_aside = _read_results(places)
        splits, others = _read_splits(places, path)
        if not len(results):
            raise ResultsError(
                f"{path} holds no results; 'featstore reproduce', or 'featstore curve' with "
                "--results, makes some"
            )
        tables = {name: _read_table(places, name) for name in TABLES}
        return cls(
            path,
            results,
            splits,
            {name: table for name, table in tables.items() if table is not None},
            {name: _read_remarks(places, name) for name in TABLES},
            (*left_aside, *others),
        )


def _read_results(places):
    """Results of all folders and files, and what was left aside."""
    results, left_aside = Results(), []
    for source in dict.fromkeys(each for place in places for each in _sources(place)):
        try:
            results = results.merged(Results.load(source))
        except ResultsError as error:
            left_aside.append(str(error))
    return results, left_aside


def _sources(place):
    """Folders that hold results, and CSV files that say by their heading that they do."""
    folders = [each for each in (place, place / "results") if is_there(each)]
    tables = {f"{name}.csv" for name in TABLES} | {"results.csv", "comparison-splits.csv"}
    files = [each for each in sorted(place.glob("*.csv")) if each.name not in tables]
    return [*folders, *(each for each in files if set(_head(each).split(",")) >= HEADING)]


def _read_splits(places, path):
    splits, left_aside = {}, []
    for file in sorted(each for place in places for each in place.glob("*.json")):
        if "featstore-splits" not in _head(file, lines=3):
            continue
        try:
            splits[str(file.relative_to(path))] = load_splits(file)
        except ProbesError as error:
            left_aside.append(str(error))
    return splits, left_aside


def _head(file, lines=1):
    """First lines of a file of text, or of what is none."""
    with file.open(encoding="utf-8", errors="replace") as opened:
        return "".join(opened.readline(MOST_OF_A_LINE) for _ in range(lines)).strip()


def _read_table(places, name):
    """Read the tables of a name in all folders, as one; None where there is none."""
    import pandas as pd

    files = [place / f"{name}.csv" for place in places]
    frames = [_checked(file, *TABLES[name]) for file in files if file.exists()]
    return pd.concat(frames, ignore_index=True) if frames else None


def _checked(file, texts, numbers):
    """Read a table and see that its columns are there and of their types."""
    import pandas as pd

    try:
        frame = pd.read_csv(file, keep_default_na=False)
        missing = [name for name in (*texts, *numbers) if name not in frame]
        if missing:
            raise ResultsError(f"{file} is damaged: it has no column {missing[0]!r}; {AGAIN}")
        for name in numbers:
            frame[name] = pd.to_numeric(frame[name].mask(frame[name] == ""))
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, ResultsError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ResultsError(f"{file} is damaged ({reason}); {AGAIN}") from error
    others = [name for name in frame if name.endswith(("_mean", "_sd")) and name not in numbers]
    for name in others:
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame.astype(dict.fromkeys(texts, str))


def _read_remarks(places, name):
    files = [place / f"{name}.txt" for place in places]
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists()]
    return [line for text in texts for line in text.splitlines()[:MOST_REMARKS] if line.strip()]


def write_table(frame, folder, name, *, dataset):
    """Write a table of :data:`TABLES`, or one that goes with it, into a folder."""
    write_text(frame.assign(dataset=dataset).to_csv(index=False), Path(folder) / f"{name}.csv")


def write_remarks(lines, folder, name):
    """Write what is to be said beside a table of :data:`TABLES`, one line each."""
    path = Path(folder) / f"{name}.txt"
    if lines:
        write_text("".join(f"{' '.join(line.split())}\n" for line in lines), path)
    else:
        path.unlink(missing_ok=True)


def write_text(text, path):
    """Write a file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
