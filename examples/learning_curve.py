"""Random and slide-grouped splits side by side: what cells of known slides are worth."""

import sys
from pathlib import Path

import featstore
import probes

store = featstore.open(Path(sys.argv[1]) / "demo.zarr")
annotations = store.annotations("demo")
embeddings = store.embeddings(store.models("demo")[0], "demo")

for name, make_splits in [("by annotation", probes.monte_carlo), ("by slide", probes.grouped)]:
    splits = make_splits(annotations, repeats=5, train=(0.1, 1.0))
    curve = probes.learning_curve(embeddings, annotations, splits, objective="l2", C=0.01)
    print(name, curve.summary()[["n_train", "auroc_mean", "auroc_sd"]], sep="\n")
