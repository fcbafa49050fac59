"""Results with planted values, as tests of figures and reports need them."""

from types import SimpleNamespace

import numpy as np

from probes.results import RESULT_COLUMNS, Results
from probes.scores import score_frame, stacked

SIZES = {0.01: 13, 0.1: 132, 1.0: 1316}
DOMAINS = ("human breast cancer", "canine lymphoma", "canine cutaneous mast cell tumour")


def row(**cells):
    """One row; what is not said of it is the same in all."""
    same = dict.fromkeys(RESULT_COLUMNS, "") | {
        "dataset": "midog",
        "repeat": 0,
        "size": 1.0,
        "metric": "auroc",
        "n_train": 1316,
        "n_val": 3,
        "n_test": 411,
        "recipe": "logistic objective=uni C=uni",
        "converged": True,
        "collapsed": False,
    }
    return same | cells


def curve(models, *, repeats=3, dataset="midog", step=0.1):
    """A learning curve: values rise by size, fall by model, and are the repeat's hundredth off."""
    return [
        row(
            model=model,
            dataset=dataset,
            experiment="learning_curve",
            repeat=repeat,
            size=size,
            n_train=n_train,
            value=0.6 + step * place - 0.02 * number + 0.01 * (repeat - (repeats - 1) / 2),
            encoder=f"sha256:{number:064d}",
            split=f"sha256:{dataset} {repeat} {size}",
        )
        for number, model in enumerate(models)
        for repeat in range(repeats)
        for place, (size, n_train) in enumerate(SIZES.items())
    ]


def matrix(models, *, repeats=2, domains=DOMAINS, dataset="midog"):
    """Every pair of domains: 0.9 in domain, 0.7 out of domain, each repeat 0.02 more."""
    return [
        row(
            model=model,
            dataset=dataset,
            experiment="cross_domain",
            repeat=repeat,
            train_domain=trained,
            test_domain=tested,
            value=(0.9 if trained == tested else 0.7) - 0.1 * number + 0.02 * repeat,
            encoder=f"sha256:{number:064d}",
            split=f"sha256:{dataset} {repeat} {trained}",
        )
        for number, model in enumerate(models)
        for repeat in range(repeats)
        for trained in domains
        for tested in domains
    ]


def with_scores(rows, labels, said, *, classes=("look-alike", "mitotic figure")):
    """Results whose trainings at the largest size all said the same of the same annotations."""
    probabilities = np.column_stack([1 - np.asarray(said), said])
    score = SimpleNamespace(
        ids=np.arange(len(labels)),
        labels=np.array(classes)[np.asarray(labels, int)],
        probabilities=probabilities,
        classes=np.array(classes),
    )
    largest = [each for each in rows if each["size"] == 1.0]
    return Results(tuple(rows), stacked([score_frame(score, each) for each in largest]))
