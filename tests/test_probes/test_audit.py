import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes
from featstore.annotations import AnnotationTable
from featstore.datasets.demo import draw_layout
from featstore.datasets.midog import read_midog
from probes.errors import AuditError, SplitError

MITOTIC, LOOK_ALIKE = "mitotic figure", "look-alike"
SIDE_PX = 224


def table_of(x, y, images, *, mitotic, name="toy", ids=None, **columns):
    ids = np.arange(len(x)) * 3 + 7 if ids is None else ids
    labels = np.where(mitotic, MITOTIC, LOOK_ALIKE)
    return AnnotationTable(name, ids, labels, columns | {"x": x, "y": y, "image": images})


def splits_of(table, *members):
    return probes.Splits(table.name, table.digest, "by hand", 0, {}, members)


def counts(audit, **wanted):
    """Rows of the table by finding, as (n, found)."""
    frame = audit.to_frame()
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return {row.finding: (row.n, row.found) for row in frame.itertuples()}


def brute_force(table, split, *, part, against, domain=None):
    """Count each finding by holding every annotation of a part against every other."""
    x, y, images = table.x.tolist(), table.y.tolist(), table.images.tolist()
    slides, labels = table.slides.tolist(), table.labels.tolist()
    row_of = {key: row for row, key in enumerate(table.ids.tolist())}
    audited = [row_of[key] for key in getattr(split, part).tolist()]
    if domain is not None:
        audited = [row for row in audited if table.domains[row] == domain]
    others = [row_of[key] for each in against for key in getattr(split, each).tolist()]

    def left(centre):
        return np.floor(centre - SIDE_PX / 2 + 0.5)

    def overlaps(a, b):
        near = max(abs(left(x[a]) - left(x[b])), abs(left(y[a]) - left(y[b]))) < SIDE_PX
        return images[a] == images[b] and near

    def holds(a, b):
        inside = [left(v[a]) <= v[b] < left(v[a]) + SIDE_PX for v in (x, y)]
        return a != b and images[a] == images[b] and all(inside)

    everyone = range(len(x))
    look_alikes = [row for row in audited if labels[row] == LOOK_ALIKE]
    found = {
        "overlapping": (audited, lambda a: any(overlaps(a, b) for b in others)),
        "same-slide": (audited, lambda a: any(slides[a] == slides[b] for b in others)),
        "contains-another": (audited, lambda a: any(holds(a, b) for b in everyone)),
        "contains-mitotic": (
            look_alikes,
            lambda a: any(holds(a, b) for b in everyone if labels[b] == MITOTIC),
        ),
    }
    return {name: (len(rows), sum(map(has, rows))) for name, (rows, has) in found.items()}


@st.composite
def small_datasets(draw):
    n = draw(st.integers(4, 30))
    halves = st.lists(st.integers(0, 1_400), min_size=n, max_size=n)
    few = st.lists(st.integers(0, 2), min_size=n, max_size=n)
    images = np.array(draw(few))
    table = table_of(
        np.array(draw(halves)) / 2,
        np.array(draw(halves)) / 2,
        np.array(["1.tiff", "2.tiff", "3.tiff"])[images],
        mitotic=np.array([1, *draw(few)[1:]]) == 1,
        slide=images // 2,
        domain=np.array(["A", "B", "C"])[np.array(draw(few))],
        ids=draw(st.sampled_from([np.arange(n) - 5, [f"{k:040d}" for k in range(n)]])),
    )
    members = []
    for repeat in range(draw(st.integers(1, 3))):
        part = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))  # 3: in no part
        part[:2] = 0, 2
        members.append(probes.Split(*(table.ids[part == k] for k in range(3)), repeat))
    return table, splits_of(table, *members)


@settings(max_examples=40)
@given(dataset=small_datasets())
def test_every_number_is_that_of_a_brute_force_count(dataset):
    table, splits = dataset
    key = ["repeat", "part", "domain", "finding", "against"]
    rows = probes.audit(table, splits).to_frame().to_dict("records")
    counted = {tuple(row[name] for name in key): (row["n"], row["found"]) for row in rows}
    for repeat, split in enumerate(splits):
        for part, against, name in [
            ("test", ("train", "val"), "train+val"),
            ("test", ("train",), "train"),
            ("val", ("train",), "train"),
        ]:
            for domain in (None, *sorted(set(table.domains.tolist()))):
                expected = brute_force(table, split, part=part, against=against, domain=domain)
                for finding, values in expected.items():
                    of_patch = finding.startswith("contains")
                    place = (repeat, part, domain or "", finding, "" if of_patch else name)
                    assert counted.get(place, (0, 0)) == values, place


def test_the_demo_data_is_counted_as_by_brute_force():
    layouts = draw_layout()
    parts = [len(layout.centres) for layout in layouts]
    table = table_of(
        *np.concatenate([layout.centres for layout in layouts]).T,
        np.repeat([layout.file_name for layout in layouts], parts),
        mitotic=np.concatenate([layout.mitotic for layout in layouts]),
        slide=np.repeat([layout.number for layout in layouts], parts),
        domain=np.repeat([layout.domain.name for layout in layouts], parts),
    )
    splits = probes.monte_carlo(table, repeats=1, train=[0.05, 1.0])
    audit = probes.audit(table, splits)
    for split in splits:
        where = {"size": split.size, "part": "test", "domain": ""}
        counted = counts(audit, against="train+val", **where) | counts(audit, against="", **where)
        assert counted == brute_force(table, split, part="test", against=("train", "val"))


@pytest.fixture(scope="module")
def midog(real_data):
    """MIDOG 2022 as far as MIDOG++ holds it: 20,550 of 20,552 annotations."""
    table = read_midog(real_data / "annotations" / "MIDOG++.json", name="midog++").table
    later = ["canine soft tissue sarcoma", "human melanoma"]
    return table.take(table.ids[~np.isin(table.domains, later)])


def test_real_annotations_give_the_numbers_of_the_protocol(midog):
    audit = probes.audit(midog, probes.monte_carlo(midog, train=[1.0]))
    assert len(midog) == 20_550
    held = audit.findings.held
    look_alikes = midog.labels == LOOK_ALIKE
    # 6.0 % as in the protocol, which says 17.3 % of the next: 36 windows hold a centre on their
    # left or upper edge only, which featstore cuts and an open square leaves out.
    assert round(100 * held["contains-mitotic"][look_alikes].mean(), 1) == 6.0
    assert round(100 * held["contains-another"].mean(), 1) == 17.5
    shares = audit.summary().set_index(["finding", "against"])["share"]
    # One draw has 43.9 % +- 0.7 % (200 draws); the protocol's had 44.8 %.
    assert shares["overlapping", "train+val"] == pytest.approx(0.439, abs=0.01)
    assert shares["same-slide", "train+val"] > 0.999
    assert audit.largest["slide"][1] == 443


def test_real_annotations_are_counted_as_by_brute_force(midog):
    """By distances between all annotations of an image, in numpy."""
    split = probes.monte_carlo(midog, repeats=1, train=[1.0])[0]
    trains = np.isin(midog.ids, np.concatenate([split.train, split.val]))
    tests = np.isin(midog.ids, split.test)
    corners = np.floor(np.stack([midog.x, midog.y], axis=1) - 112 + 0.5)
    n_found = 0
    for image in np.unique(midog.images):
        here = midog.images == image
        gaps = np.abs(corners[here & tests, None] - corners[here & trains]).max(axis=2)
        n_found += int((gaps < 224).any(axis=1).sum())
    audit = probes.audit(midog, splits_of(midog, split))
    where = {"part": "test", "against": "train+val", "domain": ""}
    assert counts(audit, **where)["overlapping"] == (len(split.test), n_found)


def test_a_case_is_audited_where_the_table_has_that_column(make_table):
    table = make_table(200)
    table.columns["case"] = np.arange(200) % 40
    audit = probes.audit(table, probes.monte_carlo(table, repeats=1, train=[1.0]))
    assert "same-case" in audit.names
    assert audit.not_audited["same-patient"] == "'toy' has no column 'patient'"
    by_case = probes.audit(table, probes.grouped(table, group="case", repeats=1, train=[1.0]))
    where = {"part": "test", "against": "train+val", "domain": ""}
    assert counts(audit, **where)["same-case"][1] > 0
    assert counts(by_case, **where)["same-case"] == (40, 0)


def test_grouped_splits_share_no_slide_and_random_ones_all(make_table):
    table = make_table()
    for splits, expected in (
        (probes.grouped(table, train=[1.0]), 0),
        (probes.monte_carlo(table, train=[1.0]), 1),
    ):
        summary = probes.audit(table, splits).summary()
        assert summary[summary["finding"] == "same-slide"]["share"].tolist() == [expected] * 2


def test_what_cannot_be_known_has_its_reason_and_the_rest_is_counted(make_table):
    table = make_table(50)
    table.columns["slide"] = np.where(np.arange(50) < 3, "", table.columns["slide"])
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    audit = probes.audit(table, splits, source=None)
    assert audit.names == ()
    assert audit.not_audited == {
        "same-slide": "3 of 50 annotations of 'toy' have no slide; name it",
        "same-case": "'toy' has no column 'case'",
        "same-patient": "'toy' has no column 'patient'",
        "overlapping": "'toy' has no column 'x'; where patches lie is not known",
        "contains-another": "'toy' has no column 'x'; where patches lie is not known",
        "contains-mitotic": "'toy' has no column 'x'; where patches lie is not known",
        "duplicates": "no embeddings were given",
        "near-duplicates": "no embeddings were given",
    }
    assert len(audit.to_frame()) == len(audit.summary()) == 0


def test_the_positive_label_is_the_mitotic_figure_or_the_second_of_two_or_named():
    x = np.array([10.0, 12, 900, 2_000])

    def look_alikes_with_one(labels, **options):
        columns = {"x": x, "y": x, "image": ["1"] * 4}
        table = AnnotationTable("toy", np.arange(4), labels, columns)
        splits = splits_of(table, probes.Split(np.array([2]), np.array([], int), np.arange(2)))
        audit = probes.audit(table, splits, **options)
        return counts(audit, part="test", against="").get("contains-mitotic"), audit

    assert look_alikes_with_one(["a", "b", "b", "a"])[0] == (1, 1)
    assert look_alikes_with_one(["a", MITOTIC, "z", "z"])[0] == (1, 1)
    assert look_alikes_with_one(["a", "b", "b", "a"], positive="a")[0] == (1, 1)
    unknown, audit = look_alikes_with_one(["a", "b", "c", "c"])
    assert unknown is None
    assert "which label is the positive one" in audit.not_audited["contains-mitotic"]
    with pytest.raises(AuditError, match="no annotation of 'toy' is a 'q'; labels are a, b"):
        look_alikes_with_one(["a", "b", "b", "a"], positive="q")


def test_the_summary_has_mean_and_range_over_the_splits_of_a_size_or_domain(make_table):
    table = make_table()
    splits = probes.monte_carlo(table, repeats=3, train=[0.1, 1.0])
    audit = probes.audit(table, splits)
    rows = audit.to_frame()
    rows = rows[(rows["part"] == "test") & (rows["against"] == "train")]
    by_size = audit.summary().set_index(["finding", "against", "size"])
    chosen = rows[(rows["domain"] == "") & (rows["size"] == 0.1)]["share"]
    found = by_size.loc["same-slide", "train", 0.1]
    assert found["share"] == pytest.approx(chosen.mean())
    assert (found["lowest"], found["highest"]) == (chosen.min(), chosen.max())
    assert found["splits"] == 3
    by_domain = audit.summary("domain").set_index(["finding", "against", "domain"])
    of_b = rows[(rows["domain"] == "B") & (rows["size"] == 1.0)]
    found = by_domain.loc["same-slide", "train", "B"]
    assert found["share"] == pytest.approx(of_b["share"].mean())
    assert (found["splits"], found["n"]) == (3, of_b["n"].mean())
    whole = by_domain.loc["same-slide", "train", ""]
    assert whole["share"] == by_size.loc["same-slide", "train", 1.0]["share"]


def test_the_summary_is_divided_by_size_or_domain_only(make_table):
    table = make_table(100)
    audit = probes.audit(table, probes.monte_carlo(table, repeats=1, train=[1.0]))
    with pytest.raises(AuditError, match="by='label' divides no table; give 'size' or 'domain'"):
        audit.summary("label")


def test_one_group_may_be_named_without_a_list(make_table):
    table = make_table(100)
    audit = probes.audit(table, probes.monte_carlo(table, repeats=1, train=[1.0]), groups="slide")
    assert audit.names == ("same-slide",)


def test_a_slide_that_pandas_says_nothing_of_is_no_slide_of_that_name(make_table):
    table = make_table(100)
    for nothing in (None, np.nan):
        table.columns["slide"] = np.array([nothing] * 3 + ["s"] * 97, object)
        audit = probes.audit(table, probes.monte_carlo(table, repeats=1, train=[1.0]))
        reason = "3 of 100 annotations of 'toy' have no slide; name it"
        assert audit.not_audited["same-slide"] == reason


def test_of_single_domain_splits_each_domain_is_held_against_what_trained(make_table):
    """A slide has cells of one domain, so tested patches share slides with their own alone."""
    table = make_table()
    slides, domains = table.column("slide"), table.column("domain")
    splits = probes.single_domain(table, repeats=1)
    frame = probes.audit(table, splits).to_frame()
    tested = frame[(frame["part"] == "test") & (frame["against"] == "train")]
    of_domain = tested[tested["domain"] != ""].set_index(["train_domain", "domain"])
    for split in splits:
        for domain in ("A", "B", "C"):
            row = of_domain.loc[(split.train_domain, domain)]
            counted = np.isin(table.ids, split.test) & (domains == domain)
            shared = np.isin(slides, slides[np.isin(table.ids, split.train)])
            assert (row["n"], row["found"]) == (counted.sum(), (counted & shared).sum())
            assert (row["found"] > 0) == (domain == split.train_domain)


def test_annotations_without_a_domain_count_in_all_and_in_none(make_table):
    table = make_table(100)
    table.columns["domain"] = np.where(np.arange(100) < 30, "", "A")
    audit = probes.audit(table, probes.monte_carlo(table, repeats=1, train=[1.0]))
    frame = audit.to_frame()
    tested = frame[(frame["part"] == "test") & (frame["against"] == "train")]
    n_of_a = tested.set_index("domain").loc["A", "n"]
    assert tested["domain"].tolist() == ["", "A"]
    assert tested["n"].tolist() == [20, n_of_a]
    assert n_of_a < 20


def test_the_dictionary_is_json_and_holds_every_row(make_table):
    table = make_table(100)
    table.columns["slide"][:20] = "7"
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    audit = probes.audit(table, splits)
    content = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert content["format"] == "featstore-audit/1"
    assert (content["annotations"], content["rule"]) == (100, "monte_carlo")
    assert tuple(content["rows"][0]) == probes.AUDIT_COLUMNS
    assert len(content["rows"]) == len(audit.to_frame())
    ((slide, n),) = Counter(table.column("slide").tolist()).most_common(1)
    assert content["largest"]["slide"] == {"value": slide, "annotations": n, "share": n / 100}
    assert content["rows"][0]["split"] == splits[0].digest


def test_splits_of_other_annotations_are_refused(make_table):
    table, other = make_table(100), make_table(90)
    other.digest = "sha256:other"
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    with pytest.raises(SplitError, match="these splits are of 100 annotations of 'toy'"):
        probes.audit(other, splits)
    twice = probes.Split(table.ids[:60], table.ids[60:70], table.ids[58:])
    with pytest.raises(SplitError, match=r"repeat 0, size 1 holds 12 annotations twice .first: ID"):
        probes.audit(table, splits_of(table, twice))
    within = probes.Split(table.ids[[0, 1, 0]], table.ids[2:3], table.ids[3:])
    with pytest.raises(SplitError, match=f"holds 1 annotations twice .first: ID {table.ids[0]}"):
        probes.audit(table, splits_of(table, within))
    stranger = probes.Split(np.array([999_999]), np.array([], int), table.ids[:5])
    with pytest.raises(SplitError, match="holds the ID 999999, which is not among the 100"):
        probes.audit(table, splits_of(table, stranger))
