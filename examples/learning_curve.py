"""Random and slide-grouped splits side by side: what cells of known slides are worth."""

import sys
from pathlib import Path

import featstore
import probes

store = featstore.open(Path(sys.argv[1]) / "demo.zarr")
annotations = store.annotations("demo")
encoders = [store.embeddings(model, "demo") for model in store.models("demo")]

# one read and one solve per encoder, for all splits of both
asked = {
    "by annotation": probes.monte_carlo(annotations, repeats=5, train=(0.1, 1.0)),
    "by slide": probes.grouped(annotations, repeats=5, train=(0.1, 1.0)),
}
results = probes.fit_and_score(
    encoders, annotations, asked, objective="l2", C=0.01, keep_scores=True
)
print(results.summary()[["model", "experiment", "n_train", "auroc_mean", "auroc_sd"]])

# which encoder is better, on whole slides that no probe has seen?
found = probes.compare(results.where(experiment="by slide", size=1.0), annotations)
print(found.repeats[["first", "second", "difference", "sd", "p_adjusted"]])
