"""The cells a probe is most wrong about: a list to look at under the microscope."""

import sys
from pathlib import Path

import numpy as np

import featstore
import probes

store = featstore.open(Path(sys.argv[1]) / "demo.zarr")
annotations = store.annotations("demo")
embeddings = store.embeddings(store.models("demo")[0], "demo")

split = probes.grouped(annotations, repeats=1, train=(1.0,))[0]
probe = probes.LogisticProbe(objective="l2", C=0.01)
probe.fit(embeddings.read(split.train), annotations.labels_of(split.train))
score = probes.evaluate(probe, embeddings, annotations, split)

of_true_class = score.probabilities[score.labels[:, None] == score.classes]
worst = np.argsort(of_true_class)[:5]
print(annotations.take(score.ids[worst]).to_frame()[["label", "image", "x", "y"]])
