"""What tests of metrics are about: drawn cases with many ties, and the readers of a real study."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st


@dataclass
class Scored:
    """Some annotations, their scores by some fits, and some weightings."""

    labels: np.ndarray
    scores: np.ndarray
    weights: np.ndarray


@st.composite
def scored(draw, both=True):
    """Two classes; every score in 0..1 is one of seven; with ``both``, each has a weight."""
    n = draw(st.integers(2, 25))
    n_fits, n_weightings = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def numbers(most, columns):
        cells = st.lists(st.integers(0, most), min_size=n * columns, max_size=n * columns)
        return np.array(draw(cells)).reshape(n, columns)

    labels, weights = numbers(1, 1)[:, 0].astype(bool), numbers(3, n_weightings)
    if both:
        labels[:2] = False, True
        weights[:2] += 1
    return Scored(labels, numbers(6, n_fits) / 6, weights)


@st.composite
def many_classes(draw):
    """Labels, probabilities with ties and names of three or four classes, each there."""
    n_classes = draw(st.integers(3, 4))
    n = draw(st.integers(n_classes, 20))
    cells = st.lists(st.integers(1, 4), min_size=n * n_classes, max_size=n * n_classes)
    parts = np.array(draw(cells), float).reshape(n, n_classes)
    codes = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n)))
    codes[:n_classes] = np.arange(n_classes)
    names = np.array(["a", "b", "c", "d"])[:n_classes]
    return names[codes], parts / parts.sum(axis=1, keepdims=True), names


@dataclass
class Modality:
    """What five readers said of the same candidates, seen in one way, in the order of targets."""

    truth: np.ndarray
    said: np.ndarray
    slides: np.ndarray
    regions: np.ndarray


def read_reader_study(folder):
    """Read the five modalities of DIDSR's mitoticFigureCounts by their names, or skip the test."""
    path = folder / "reader_study" / "dfClassify20180627.csv"
    if not path.exists():
        pytest.skip(f"no {path.parent.name}/{path.name} in the folder of real data")
    table = pd.read_csv(path)
    observers = [f"observer.{number}" for number in range(1, 6)]
    return {
        name: Modality(
            rows["truth"].to_numpy() == 1,
            rows[observers].to_numpy(float),
            rows["wsiName"].to_numpy(str),
            rows["roiID"].to_numpy(str),
        )
        for name, rows in table.sort_values("targetID").groupby("modalityID")
    }
