"""A domain shift of known size: experiments find it, with its sign, and none where there is none.

In each domain the classes lie at +1 and -1 times a strength along one axis, with normal noise of 1
along each. A probe that was trained there finds the axis, and its sign; of a domain of strength s
it then has the AUROC Phi(sqrt(2) s), since scores of the classes are 2 s apart and each vary by 1.
"""

import numpy as np
import pytest
from scipy.stats import norm

import probes
from probes.protocols import InMemory
from tests.test_probes.conftest import Table

N = 2_000  # annotations of a domain
NEAR = 0.03  # twice the standard error of an AUROC on the 400 that are tested in domain


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    columns = {"domain": np.repeat(list("ABC"), N), "slide": np.arange(3 * N) // 20}
    labels = np.where(rng.random(3 * N) < 0.45, "mitotic figure", "look-alike")
    return Table(np.arange(3 * N), labels, columns)


def encoder(table, strengths, *, name="shifted"):
    """Embeddings in which the classes are so far apart in the domains A, B and C."""
    values = np.random.default_rng(1).normal(size=(3 * N, 4))
    sign = np.where(table.labels == "mitotic figure", 1, -1)
    values[:, 0] += sign * np.repeat(strengths, N)
    return InMemory(table.ids, values, name, f"sha256:{name}")


def expected(strengths):
    """AUROC by training domain (down) and test domain (across)."""
    return norm.cdf(np.sqrt(2) * np.sign(strengths)[:, None] * np.array(strengths))


def matrix(table, strengths):
    return probes.cross_domain(encoder(table, strengths), table, repeats=3, objective="l2")


@pytest.mark.parametrize(
    "strengths",
    [
        pytest.param([0.8, 0.3, 0.8], id="the signal is weak in one domain"),
        pytest.param([0.8, -0.4, 0.8], id="it points the other way in one"),
        pytest.param([0.8, 0.8, 0.8], id="nothing is planted"),
    ],
)
def test_every_pair_of_domains_has_the_auroc_that_was_planted(table, strengths):
    found = matrix(table, strengths)
    values = expected(strengths)
    assert found.matrix().to_numpy() == pytest.approx(values, abs=NEAR)
    means = found.summary().set_index("tested")["auroc_mean"]
    inside = np.eye(3, dtype=bool)
    assert means["in domain"] == pytest.approx(values[inside].mean(), abs=NEAR / 2)
    assert means["out of domain"] == pytest.approx(values[~inside].mean(), abs=NEAR / 2)


def test_a_domain_left_out_is_met_as_the_others_have_taught(table):
    """Two domains outweigh one that points the other way a little, and are met as they are."""
    strengths = [0.8, -0.2, 0.8]
    splits = probes.leave_one_domain_out(table, repeats=2)
    found = probes.cross_domain(encoder(table, strengths), table, splits, objective="l2").matrix()
    assert found.loc["all but B"].to_numpy() == pytest.approx(expected(strengths)[0], abs=NEAR)
    assert found.loc["all but A"].to_numpy() == pytest.approx(expected(strengths)[0], abs=NEAR)


def test_of_two_encoders_the_shifted_one_loses_out_of_domain_what_was_planted(table):
    """In domain they are equally good: one of the domains only points the other way."""
    both = [
        encoder(table, strengths, name=name)
        for name, strengths in (("steady", [0.8] * 3), ("shifted", [0.8, -0.8, 0.8]))
    ]
    results = probes.cross_domain(both, table, repeats=5, objective="l2")
    found = probes.compare(results, table).places.set_index("tested")
    assert found["pairs"].to_dict() == {"in domain": 3, "out of domain": 6}
    assert abs(found.loc["in domain", "difference"]) < NEAR / 2
    assert found.loc["in domain", "p"] > 0.05
    gap = (expected([0.8] * 3) - expected([0.8, -0.8, 0.8])).sum() / 6
    assert found.loc["out of domain", "difference"] == pytest.approx(gap, abs=NEAR / 2)
    assert np.isnan(found.loc["out of domain", "p"])
    assert found.loc["out of domain", "reason"].startswith("the same annotations are tested")
