"""Speed as ratios, both sides in one run: ``make bench``, or name one behind the module."""

import sys

from tests.benchmarks import (
    audit,
    experiments,
    extraction,
    metrics,
    patches,
    solver,
    splits,
    start,
    store,
    training,
)

BENCHMARKS = {
    "start": start.run,
    "solver": solver.run,
    "solver-large": solver.run_large,
    "metrics": metrics.run,
    "experiments": experiments.run,
    "splits": splits.run,
    "audit": audit.run,
    "store": store.run,
    "patches": patches.run,
    "extraction": extraction.run,
    "training": training.run,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"\n{name}", flush=True)
    for line in BENCHMARKS[name]():
        print(f"  {line}", flush=True)
