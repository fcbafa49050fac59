"""Hold a store against every MUST of docs/store-format.md, and drop what can be made again.

Every byte is read once, one chunk at a time. What is wrong is named: array, chunk, annotation IDs.
Annotation tables and attributes are never changed here.
"""

from pathlib import Path

from featstore.errors import NotInStoreError, StoreError
from featstore.store.examination import Examination, Finding, beside
from featstore.store.layout import FORMAT, finish_all_swaps
from featstore.store.manifest import MANIFEST
from featstore.store.rowcheck import EmbeddingCheck, PatchCheck
from featstore.store.tablecheck import check_table

__all__ = ["Finding", "examine", "verify"]

UPGRADE = "pip install --upgrade featstore-probes"


def verify(path, *, repair=False):
    """Check a local store.

    Parameters
    ----------
    path : path-like
        Folder of the store.
    repair : bool
        Drop bad chunks of embeddings and patches, so that extracting and cutting make them again,
        and leftovers of dead runs. Nothing else is touched.

    Returns
    -------
    list of Finding
        Empty where all is well.

    Raises
    ------
    StoreError
        If there is no store, or not on a local disk.

    Examples
    --------
    >>> import tempfile, featstore
    >>> store = featstore.create(tempfile.mkdtemp())
    >>> _ = (Path(store.path) / "notes.txt").write_text("ours")
    >>> [str(finding) for finding in verify(store.path) if finding.rule == "S1"]
    ['note S1 notes.txt: is not part of the format and was not checked']
    """
    return examine(path, repair=repair).findings


def examine(path, *, repair=False):
    """Check a local store; return findings and counts, as an :class:`Examination`."""
    exam = Examination(_folder_of(path), repair=repair)
    if not _check_root(exam):
        return exam
    if repair:
        finish_all_swaps(exam.root)
    datasets = _members(exam, "annotations", "dataset")
    tables = {name: check_table(exam, f"annotations/{name}", name) for name in datasets}
    for model in _members(exam, "embeddings", "model"):
        for dataset in _members(exam, f"embeddings/{model}", "dataset"):
            EmbeddingCheck(exam, f"embeddings/{model}/{dataset}", dataset, tables).run()
    if _is_folder(exam, "patches"):  # which a store may do without
        for dataset in _members(exam, "patches", "dataset"):
            PatchCheck(exam, f"patches/{dataset}", dataset, tables).run()
    return exam


def _folder_of(path):
    if "://" in str(path):
        raise StoreError(
            f"{path} is not on a local disk; 'featstore copy' it, then verify the copy"
        )
    if str(path).endswith(".zip"):
        raise StoreError(f"{path} is a zip; 'featstore copy' it, then verify the copy")
    folder = Path(path)
    if not folder.exists():
        raise NotInStoreError(f"no store at {path}")
    if not any((folder / name).exists() for name in ("zarr.json", "annotations", "embeddings")):
        raise StoreError(f"{path} is not a featstore store: no zarr.json, no annotations in it")
    return folder


def _check_root(exam):
    """Check the root; whether its format can be checked here."""
    folders, files = exam.scan(".")
    others = beside(folders, "annotations", "embeddings", "patches")
    exam.unknown(".", [*others, *beside(files, "zarr.json", MANIFEST)])
    claimed = exam.metadata(".", "root").claimed
    try:
        version = [int(part) for part in claimed["attributes"]["featstore"]["format"].split(".")]
    except (AttributeError, KeyError, TypeError, ValueError):
        return True  # the schema, the seal or the missing file was a finding already
    return _can_be_checked(exam, version)


def _can_be_checked(exam, version):
    here, there = [int(part) for part in FORMAT.split(".")], ".".join(map(str, version))
    if version[0] > here[0]:
        message = f"has the format {there}, this installation checks up to {FORMAT}; {UPGRADE}"
        exam.add("M1", ".", message)
    elif version > here:
        message = f"has the format {there}: what is newer than {FORMAT} was not checked; {UPGRADE}"
        exam.add("M1", ".", message, severity="note")
    return version[0] <= here[0]


def _is_folder(exam, place):
    return (exam.root / place).is_dir() and not (exam.root / place).is_symlink()


def _members(exam, place, kind):
    """Check a group that only holds others; return their names."""
    if not _is_folder(exam, place):
        exam.add("M4", place, "is not there; copy the store again from where it came")
        return []
    folders, files = exam.scan(place)
    exam.unknown(place, beside(files, "zarr.json"))
    exam.metadata(place, "group")
    return [name for name in folders if exam.is_named_well(place, kind, name)]
