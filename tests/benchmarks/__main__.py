"""Speed as ratios, both sides in one run: ``make bench``, or name one behind the module."""

import sys

from tests.benchmarks import extraction, metrics, patches, solver, start, store

BENCHMARKS = {
    "start": start.run,
    "solver": solver.run,
    "solver-large": solver.run_large,
    "metrics": metrics.run,
    "store": store.run,
    "patches": patches.run,
    "extraction": extraction.run,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"\n{name}", flush=True)
    for line in BENCHMARKS[name]():
        print(f"  {line}", flush=True)
