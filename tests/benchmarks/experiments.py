"""Both experiments of the paper, 45 trainings, beside a solve of the 20 fits of the first alone.

20,552 x 1,536 float32 with a decaying spectrum and a planted direction, as the solver's benchmark
has them; domains and labels in MIDOG's numbers. An experiment is all of it: reading the embeddings,
the solve, every AUROC of every pair of domains, the table. Encoders are the same rows under other
names; every read is a copy of its own, as of a store. Held is what tracemalloc sees at its peak;
the embeddings of one encoder are 126 MB of it.
"""

import tracemalloc

import numpy as np

import probes
from probes.protocols import positions
from tests.benchmarks.clock import best_s, line
from tests.benchmarks.solver import C_UNI, DIM, N, _ours, _rows

ENCODERS = 8
# Mitotic figures and look-alikes: MIDOG++'s table of 2022's five domains.
DOMAINS = {
    "human breast cancer": (1_721, 2_714),
    "canine lung cancer": (855, 952),
    "canine lymphoma": (3_959, 4_257),
    "canine cutaneous mast cell tumour": (2_327, 1_366),
    "human neuroendocrine tumour": (639, 1_762),
}


class _Midog:
    """The annotations."""

    name, digest = "midog2022", "sha256:midog"

    def __init__(self, mitotic, rng):
        self.ids = np.arange(N)
        self.labels = np.where(mitotic, "mitotic figure", "look-alike")
        self.domains = np.empty(N, "U40")
        for place, of_class in enumerate((mitotic, ~mitotic)):
            names = np.repeat(list(DOMAINS), [counts[place] for counts in DOMAINS.values()])
            self.domains[of_class] = rng.permutation(names)

    def labels_of(self, ids):
        return self.labels[ids]

    def column(self, name):
        return self.domains


class _Encoder:
    """Embeddings of one encoder."""

    def __init__(self, number, ids, X):
        self.model, self.digest = f"encoder-{number}", f"sha256:{number}"
        self.ids, self.X = ids, X

    def read(self, ids):
        return self.X[positions(self.ids, ids)]


def _data():
    rng = np.random.default_rng(0)
    X, _ = _rows(N, DIM, rng)
    told = (X[:, 5:200] * (1 + np.arange(5, 200))).sum(axis=1) / 140 + rng.normal(size=N)
    mitotic = np.argsort(np.argsort(-told)) < sum(counts[0] for counts in DOMAINS.values())
    return X, _Midog(mitotic, rng)


def _solve(X, midog, splits):
    """Solve the fits of these splits, and nothing else."""
    weights = np.zeros((N, len(splits)))
    for fit, split in enumerate(splits):
        weights[split.train, fit] = 1
    codes = (midog.labels == "mitotic figure").astype(int)
    return _ours(X, codes, weights, "uni", C_UNI)


def run():
    """Yield one line per comparison."""
    X, midog = _data()
    curve, domains = probes.monte_carlo(midog), probes.single_domain(midog)
    both = {"learning_curve": curve, "cross_domain": domains}
    encoders = [_Encoder(number, midog.ids, X) for number in range(ENCODERS)]

    def run_on(some, **options):
        return probes.fit_and_score(some, midog, both, **options)

    found = {}
    solve_s = best_s(lambda: _solve(X, midog, curve), runs=2)
    one_s = best_s(lambda: found.update(one=run_on(encoders[0])), runs=2)
    eight_s = best_s(lambda: found.update(eight=run_on(encoders)), runs=1)
    yield line("uni, 20 fits solved", solve_s, "45 trainings, read, solved and tested", one_s)
    yield line("45 trainings of one encoder", one_s, f"of {ENCODERS} encoders", eight_s)
    again_s = best_s(lambda: run_on(encoders, known=found["eight"]), runs=1)
    yield line(f"all of {ENCODERS} encoders there and equal", again_s, "fitted", eight_s)
    values = np.array([row["value"] for row in found["one"].rows])
    yield f"{len(values)} rows of one encoder, AUROC {values.min():.3f} to {values.max():.3f}"
    for some, name in ((encoders[:1], "one encoder"), (encoders[:3], "three encoders")):
        tracemalloc.start()
        run_on(some)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        yield f"held at the peak, {name}: {held / X.nbytes:.2f} times the embeddings of one"
