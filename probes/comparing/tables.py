"""Tables of comparisons: a row per pair and test part, over repeats, and over pairs of domains."""

from itertools import combinations

import numpy as np

from probes.comparing.corrections import adjusted
from probes.comparing.pairs import NO_SCORES, by_bootstrap, by_delong
from probes.comparing.resampling import resampled_t_test
from probes.means import places

__all__ = ["SETTING", "TEST", "place_table", "repeat_table", "split_rows", "split_table"]

# What a difference is of, whatever the repeat.
SETTING = ("dataset", "experiment", "size", "train_domain", "test_domain")

# What a test part is of.
TEST = ("experiment", "split", "repeat", "size", "test_domain")

# What was drawn at once.
DRAW = ("experiment", "split", "repeat", "size")

# What means over pairs of domains are of.
PLACE = ("dataset", "experiment", "size", "tested")

SPLIT_COLUMNS = (
    *SETTING,
    "repeat",
    "first",
    "second",
    "first_value",
    "second_value",
    "difference",
    "delong_se",
    "delong_p",
    "delong_p_adjusted",
    "bootstrap_low",
    "bootstrap_high",
    "bootstrap_p",
    "bootstrap_p_adjusted",
    "n_test",
    "n_groups",
    "split",
    "reason",
)

REPEAT_COLUMNS = (
    *SETTING,
    "first",
    "second",
    "first_mean",
    "second_mean",
    "difference",
    "sd",
    "repeats",
    "t",
    "p",
    "p_adjusted",
    "naive_p",
    "shared_test",
    "reason",
)

PLACE_COLUMNS = (
    *PLACE,
    "first",
    "second",
    "first_mean",
    "second_mean",
    "difference",
    "sd",
    "repeats",
    "pairs",
    "t",
    "p",
    "p_adjusted",
    "naive_p",
    "reason",
)

OUTSIDE = "out of domain"

SAME_TEST = (
    "the same annotations are tested in every repeat, so that repeats tell of training draws "
    "alone; see the tests on each split"
)


def split_rows(group, part, *, metric, draws, seed):
    """One row per pair of models on one test part."""
    rows = group.to_dict("records")
    said = {} if part is None else part.said
    pairs = list(combinations(rows, 2))
    scored = [
        (one["compared"], other["compared"])
        for one, other in pairs
        if one["compared"] in said and other["compared"] in said
    ]
    tests = _tests(part, scored, metric=metric, draws=draws, seed=seed)
    for one, other in pairs:
        names = {"first": one["compared"], "second": other["compared"]}
        row = {name: one[name] for name in (*SETTING, "repeat", "split", "n_test")} | names
        row |= {"first_value": one["value"], "second_value": other["value"]}
        row["difference"] = one["value"] - other["value"]
        row["n_groups"] = _n_groups(part)
        untested = UNTESTED | {"reason": one["reason"] or other["reason"] or NO_SCORES}
        yield row | tests.get(tuple(names.values()), untested)


UNTESTED = dict.fromkeys(
    ("delong_se", "delong_p", "bootstrap_low", "bootstrap_high", "bootstrap_p"), np.nan
)


def _n_groups(part):
    if part is None:
        return 0
    return len(part.ids) if part.groups is None else len(np.unique(part.groups))


def _tests(part, pairs, *, metric, draws, seed):
    """Both tests of each pair, by its names."""
    if not pairs:
        return {}
    drawn = by_bootstrap(part, pairs, metric=metric, draws=draws, seed=seed)
    if metric == "auroc":
        exact = by_delong(part, pairs)
    else:
        none = {"delong_se": np.nan, "delong_p": np.nan, "reason": "DeLong's test is of AUROC"}
        exact = [none for _ in pairs]
    return {pair: _both(*found) for pair, *found in zip(pairs, exact, drawn, strict=True)}


def _both(exact, drawn):
    named = [
        f"{name}: {found['reason']}"
        for name, found in (("DeLong", exact), ("bootstrap", drawn))
        if found["reason"]
    ]
    return exact | drawn | {"reason": "; ".join(named)}


def split_table(rows, correction):
    """Put rows into a table, with p-values adjusted for all that one repeat asks."""
    import pandas as pd

    table = pd.DataFrame(rows)
    for test in ("delong", "bootstrap"):
        families = table.groupby(["experiment", "repeat"], sort=False)[f"{test}_p"]
        table[f"{test}_p_adjusted"] = families.transform(
            lambda p: adjusted(p.to_numpy(), correction)
        )
    return table[list(SPLIT_COLUMNS)]


def repeat_table(splits, frame, parts, correction):
    """One row per pair and setting."""
    import pandas as pd

    shared, sizes = _shared_tests(frame, parts), _sizes(frame)
    sizes = sizes.groupby(list(SETTING), sort=False)[["pool", "held_out"]].mean()
    rows = []
    for key, group in splits.groupby([*SETTING, "first", "second"], sort=False):
        row = dict(zip((*SETTING, "first", "second"), key, strict=True))
        setting = key[: len(SETTING)]
        row["shared_test"] = shared.get(setting, np.nan)
        same = row["shared_test"] == 1 or (places(group) == OUTSIDE).all()
        rows.append(row | _over_repeats(group, *sizes.loc[setting], same=same))
    table = pd.DataFrame(rows)
    table["p_adjusted"] = adjusted(table["p"].to_numpy(), correction)
    return table[list(REPEAT_COLUMNS)]


def _over_repeats(group, n_train, n_test, *, same):
    """Means and t-test of one pair, of which each repeat has a row.

    Parameters
    ----------
    group : DataFrame
        With ``first_value``, ``second_value`` and ``difference``.
    n_train, n_test : float
        Annotations that a training part was drawn from, and those held out of them.
    same : bool
        Whether every repeat tests the same annotations.
    """
    test = resampled_t_test(group["difference"].to_numpy(), n_train=n_train, n_test=n_test)
    both = group[group["difference"].notna()]
    row = {"first_mean": both["first_value"].mean(), "second_mean": both["second_value"].mean()}
    row |= {name: getattr(test, name) for name in TESTED}
    return row | UNTESTED_REPEATS if same and test.repeats > 1 else row


TESTED = ("difference", "sd", "repeats", "t", "p", "naive_p", "reason")
UNTESTED_REPEATS = {"t": np.nan, "p": np.nan, "naive_p": np.nan, "reason": SAME_TEST}


def _sizes(frame):
    """One row per test part, with what its training was drawn from, and what that held out.

    Of a split that is tested on several of its training domains the held-out part is all of these.
    """
    tests = frame.drop_duplicates(list(TEST))
    inside = places(tests) != OUTSIDE
    drawn = tests["n_test"].where(inside, 0).groupby([tests[name] for name in DRAW])
    held_out = drawn.transform("sum").where(inside, tests["n_test"])
    return tests.assign(pool=tests["n_train"] / tests["size"], held_out=held_out)


def place_table(splits, frame, correction):
    """One row per pair, in domain and out of domain, of means over pairs of domains."""
    import pandas as pd

    splits, sizes = (
        table.assign(tested=places(table)).query("tested != ''")
        for table in (splits, frame.drop_duplicates(list(TEST)))
    )
    rows = []
    for key, group in splits.groupby([*PLACE, "first", "second"], sort=False):
        own = sizes[(sizes[list(PLACE)] == key[: len(PLACE)]).all(axis=1)]
        drawn = own.drop_duplicates(list(DRAW))
        by_repeat = group.groupby("repeat")[["first_value", "second_value", "difference"]]
        row = dict(zip((*PLACE, "first", "second"), key, strict=True))
        row["pairs"] = len(group[["train_domain", "test_domain"]].drop_duplicates())
        rows.append(
            row
            | _over_repeats(
                by_repeat.agg(lambda values: values.mean(skipna=False)),
                (drawn["n_train"] / drawn["size"]).sum(),
                own["n_test"].sum(),
                same=row["tested"] == OUTSIDE,
            )
        )
    table = pd.DataFrame(rows, columns=[name for name in PLACE_COLUMNS if name != "p_adjusted"])
    table["p_adjusted"] = adjusted(table["p"].to_numpy(float), correction)
    return table[list(PLACE_COLUMNS)]


def _shared_tests(frame, parts):
    """Share of a test part that another repeat tests too, on average, by setting."""
    settings = frame.drop_duplicates(list(TEST))
    shared = {}
    for key, group in settings.groupby(list(SETTING), sort=False):
        places = group[list(TEST)].itertuples(index=False, name=None)
        found = [parts[place].ids for place in places if parts.get(place) is not None]
        shares = [
            2 * len(np.intersect1d(one, other)) / max(len(one) + len(other), 1)
            for one, other in combinations(found, 2)
        ]
        if shares:
            shared[key] = float(np.mean(shares))
    return shared
