"""Files of splits against JSON in which every part of every split lists its IDs.

The paper's trainings on tables as large as its datasets: MIDOG's 20,552 annotations, 25 of five
domains; CCMCT's 72,845.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

import probes
from tests.benchmarks.clock import best_s, line
from tests.test_probes.conftest import Table

SIZES = (20_552, 72_845)
PRESETS = ("ganz2024-sizes", "ganz2024-domains")


def _table(n):
    labels = np.where(np.random.default_rng(0).random(n) < 0.46, "mitotic figure", "look-alike")
    return Table(
        np.arange(1, n + 1), labels, {"domain": np.array(list("ABCDE"))[np.arange(n) * 5 // n]}
    )


def _write_lists(splits, path):
    """Write every part whole."""
    parts = [[part.tolist() for part in (s.train, s.val, s.test)] for s in splits]
    path.write_text(json.dumps(parts))


def run():
    """Yield two lines per table and experiment, for each kind of file."""
    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder) / "lists.json"
        for n in SIZES:
            table = _table(n)
            for name in PRESETS:
                splits = probes.preset(name, table)
                _write_lists(splits, lists)
                plain_s = best_s(lambda: json.loads(lists.read_text()))
                for ending in ("json", "parquet"):
                    path = Path(folder) / f"splits.{ending}"
                    saved_s = best_s(lambda splits=splits, path=path: splits.save(path))
                    read_s = best_s(lambda path=path: probes.load_splits(path))
                    sizes = [file.stat().st_size for file in (path, lists)]
                    yield (
                        f"{name}, {n:,} annotations, {ending}: {sizes[0]:,} bytes, saved in "
                        f"{saved_s:.2f} s; lists {sizes[1]:,}, {sizes[1] / sizes[0]:.1f} times"
                    )
                    yield line("  read and checked", read_s, "lists read alone", plain_s)
