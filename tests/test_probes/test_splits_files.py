"""Files of splits: what comes back, what is refused, and what a dataset must be to be theirs."""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes
from probes.errors import MissingExtraError, SplitError
from tests.strategies import annotation_ids
from tests.test_probes.conftest import Table
from tests.test_probes.splitting import in_another_order, parts, without

MAKERS = {
    "monte_carlo": {},
    "grouped": {"train": (0.1, 1.0)},
    "single_domain": {"repeats": 2},
    "leave_one_domain_out": {"repeats": 2, "stratify": "label"},
}
ENDINGS = ["json", "parquet"]


def saved(splits, folder, ending="json"):
    """Write splits, and read them again."""
    splits.save(folder / f"splits.{ending}")
    return probes.load_splits(folder / f"splits.{ending}")


def same(one, other):
    """Whether splits are the same in every field."""
    arrays = [(a.train, a.val, a.test) for a in one], [(b.train, b.val, b.test) for b in other]
    return (
        one.digest == other.digest
        and one.options == json.loads(json.dumps(one.options)) == other.options
        and (one.dataset, one.rule, one.seed) == (other.dataset, other.rule, other.seed)
        and [split.name for split in one] == [split.name for split in other]
        and all(
            np.array_equal(a, b) and a.dtype.kind == b.dtype.kind
            for of_one, of_other in zip(*arrays, strict=True)
            for a, b in zip(of_one, of_other, strict=True)
            if len(a)
        )
    )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("maker", MAKERS)
def test_splits_come_back_from_their_file(make_table, tmp_path, maker, ending):
    table = make_table(900)
    splits = getattr(probes, maker)(table, **MAKERS[maker], one_class="keep")
    back = saved(splits, tmp_path, ending)
    assert same(splits, back)
    table.digest = "sha256:of another order"
    back.check(table)


@settings(max_examples=40)
@given(
    ids=annotation_ids,
    parts_of=st.lists(
        st.lists(st.integers(0, 3), min_size=30, max_size=30), min_size=1, max_size=4
    ),
    seed=st.integers(0, 2**40),
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_any_splits_come_back_with_integers_and_long_texts_as_ids(ids, parts_of, seed, ending):
    ids = np.array(ids)
    labels = np.array(["a", "b", "c"])[np.arange(len(ids)) % 3]
    rng = np.random.default_rng(seed)
    members = []
    for repeat, codes in enumerate(parts_of):
        drawn = rng.permutation(len(ids))
        of_row = np.array(codes)[: len(ids)][drawn]
        three = [ids[drawn[of_row == part]] for part in range(3)]
        members.append(probes.Split(*three, repeat, float(rng.uniform(0.1, 1)), "lung", repeat))
    order = np.argsort(ids)
    splits = probes.Splits(
        "toy",
        "sha256:0",
        "by hand",
        seed,
        {"a": [1, 0.5]},
        tuple(members),
        ids[order],
        labels[order],
    )
    with tempfile.TemporaryDirectory() as folder:
        back = saved(splits, Path(folder), ending)
    assert same(splits, back)
    assert back.ids.tolist() == ids[order].tolist()
    assert back.labels.tolist() == labels[order].tolist()


def test_splits_made_by_hand_come_back_without_labels(tmp_path):
    split = probes.Split(np.array([5, 3]), np.array([]), np.array([1]))
    splits = probes.Splits("toy", "sha256:0", "by hand", 0, {}, (split,))
    back = saved(splits, tmp_path)
    assert same(splits, back)
    assert back.labels is None
    assert back.to_frame().columns.tolist() == [
        *("repeat", "size", "train_domain", "n_train", "n_val", "n_test", "redraws", "digest")
    ]


def test_a_file_is_small_and_starts_with_what_people_read(make_table, tmp_path):
    splits = probes.monte_carlo(make_table(20_552))
    splits.save(tmp_path / "s.json")
    lines = (tmp_path / "s.json").read_text().splitlines()
    assert (tmp_path / "s.json").stat().st_size < 900_000
    assert json.loads("{" + lines[2].strip().rstrip(",") + "}") == {"dataset": "toy"}
    first = json.loads(lines[lines.index(' "splits": [') + 1].rstrip(","))
    assert (first["repeat"], first["size"], first["digest"]) == (0, 0.001, splits[0].digest)
    assert (first["train"][1], first["val"][1], first["test"][1]) == (13, 3, 4_110)
    content = json.loads("\n".join(lines))
    assert len(content["lists"]) == 3 * 5  # of each repeat one per part; sizes are numbers of it
    number, n = content["splits"][1]["train"]
    places = content["lists"][number][:n]
    assert [content["ids"][place] for place in places] == splits[1].train.tolist()


def test_places_that_follow_each_other_are_a_pair(make_table, tmp_path):
    """All other domains are tested whole: 5 ranges where IDs go by domain."""
    table = make_table(1_000, n_slides=5, n_domains=5)
    table.ids = np.argsort(np.argsort(table.column("domain"), kind="stable"))
    splits = probes.single_domain(table, repeats=1)
    assert same(splits, saved(splits, tmp_path))
    lists = json.loads((tmp_path / "splits.json").read_text())["lists"]
    assert sum(isinstance(item, list) for items in lists for item in items) >= 5
    assert (tmp_path / "splits.json").stat().st_size < 20_000


def test_the_digest_is_over_everything(make_table):
    splits = probes.monte_carlo(make_table(), repeats=1, train=[1.0])
    split = splits[0]
    swapped = replace(split, train=np.append(split.train[1:], split.train[0]))
    others = [
        replace(splits, dataset="other"),
        replace(splits, dataset_digest="sha256:other"),
        replace(splits, rule="grouped"),
        replace(splits, seed=43),
        replace(splits, options=splits.options | {"val": 0.1}),
        replace(splits, labels=splits.labels[::-1]),
        replace(splits, ids=np.append(splits.ids, 10**6)),
        replace(splits, members=(swapped,)),
        replace(splits, members=(replace(split, repeat=1),)),
        replace(splits, members=(replace(split, size=0.5),)),
        replace(splits, members=(replace(split, train_domain="A"),)),
        replace(splits, members=(replace(split, redraws=1),)),
    ]
    assert len({each.digest for each in (splits, *others)}) == 13
    assert replace(splits).digest == splits.digest


# ---- files from anyone


@pytest.fixture
def written(make_table, tmp_path):
    """A file of splits, to be changed; and a function that expects it to be refused."""
    file = tmp_path / "s.json"
    probes.monte_carlo(make_table(60), repeats=2, train=(0.5, 1.0)).save(file)

    def refused(message, change=None, text=None):
        if change is not None:
            content = json.loads(file.read_text())
            change(content)
            text = json.dumps(content)
        other = tmp_path / "changed.json"
        other.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SplitError, match=message) as caught:
            probes.load_splits(other)
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 400

    return file, refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a file of splits"),
        ("not json", "is not a file of splits"),
        ("[]", "is not a file of splits of the format 'featstore-splits/2'; 'featstore split'"),
        ('{"format": "featstore-splits/1"}', "is not a file of splits of the format"),
        ('{"format": "featstore-splits/2"}', "are damaged: 'ids' is missing"),
        (b"\xff\xfe{}", "it is not UTF-8 text"),
        ('{"format": "featstore-splits/2", "seed": NaN}', "it holds NaN"),
        ('{"seed": Infinity}', "it holds Infinity"),
        ("[" * 200_000, "it is nested too deeply"),
        ('{"seed": ' + "9" * 5_000 + "}", "is not a file of splits: Exceeds the limit"),
    ],
)
def test_what_is_no_file_of_splits_is_refused_in_a_line(written, text, message):
    written[1](message, text=text)


def put(*path, value):
    """Change of one place of a file."""

    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("ids", 3, value=10**6), "the IDs do not ascend, or one stands twice"),
        (put("ids", 3, value="4"), "neither all whole numbers nor all texts"),
        (put("ids", 3, value=4.0), "neither all whole numbers nor all texts"),
        (put("ids", 3, value=True), "neither all whole numbers nor all texts"),
        (put("ids", -1, value=2**63), "an ID does not fit 64 bits"),
        (put("ids", -1, value=10**6), "IDs of repeat 0, size 0.5 are not those that were written"),
        (put("ids", value={}), "'ids' is {}, which is no list"),
        (put("lists", 0, 0, value=60), "a place is not one of 0 to 59"),
        (put("lists", 0, 0, value=-1), "a place is not one of 0 to 59"),
        (put("lists", 0, 0, value=[5, 4]), "or a pair descends"),
        (put("lists", 0, 0, value=[0, 59]), "a list holds 9. places of 60"),
        (put("lists", 0, 0, value=[0, 1, 2]), "neither a whole number nor a pair"),
        (put("lists", 0, 0, value=None), "neither a whole number nor a pair"),
        (put("lists", 0, value="0"), "a list of places is '0'"),
        (put("splits", value=[]), "they hold no splits"),
        (put("splits", 0, value=7), "7 stands where an object should"),
        (put("splits", 0, "train", value=[0, 61]), "no list is as long"),
        (put("splits", 0, "train", value=[99, 0]), "no list is as long"),
        (put("splits", 0, "train", value=[0, "1"]), "not a list's number and how many of it"),
        (put("splits", 0, "size", value=0.0), "size 0, redraws 0 is no draw"),
        (put("splits", 0, "size", value=1), "'size' is 1, which is no float"),
        (put("splits", 0, "repeat", value=False), "'repeat' is False, which is no int"),
        (put("splits", 0, "repeat", value=-1), "is no draw"),
        (put("splits", 0, "train_domain", value="lung"), "their content has the digest sha256:"),
        (put("splits", 0, "redraws", value=1), "their content has the digest sha256:"),
        (put("seed", value=43), "it was changed: make it again with 'featstore split'"),
        (put("seed", value="42"), "'seed' is '42', which is no int"),
        (put("options", "val", value=0.3), "their content has the digest"),
        (put("options", value=[]), "which is no dict"),
        (put("dataset", value="other"), "their content has the digest"),
        (put("dataset", value="\ud800"), "are damaged: "),
        (put("labels", 0, value=2), "a label is none of 2 classes"),
        (put("labels", 0, value=-1), "a label is none of 2 classes"),
        (put("labels", 0, value="a"), "or one is no whole number"),
        (put("labels", value=[0]), "1 labels stand beside 60 IDs"),
        (put("classes", value=["a", 1]), "the classes are"),
        (put("classes", value=["a", "b"]), "their content has the digest"),
    ],
)
def test_a_file_that_was_changed_is_refused_in_a_line_that_says_where(written, change, message):
    written[1](message, change=change)


def test_a_part_that_overlaps_another_is_refused_even_with_digests_that_fit(make_table, tmp_path):
    split = probes.monte_carlo(make_table(), repeats=1, train=[1.0])[0]
    both = probes.Split(split.train, split.val, np.append(split.test, split.train[0]))
    twice = probes.Split(np.append(split.train, split.train[0]), split.val, split.test)
    for wrong in (both, twice):
        for ending in ENDINGS:
            with pytest.raises(SplitError, match="an ID of repeat 0, size 1 stands twice"):
                saved(
                    probes.Splits("toy", "sha256:toy", "by hand", 0, {}, (wrong,)), tmp_path, ending
                )


def test_a_file_that_would_fill_the_memory_is_refused_before_it_does(written, tmp_path):
    def change(content):
        content["ids"] = list(range(200_000))
        content["lists"] = [[[0, 199_999]]] * 300

    written[1]("they hold 60,000,000 annotations, more than 50,000,000", change=change)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(SplitError, match="has 268,435,457 bytes; a file of splits has at most"):
        probes.load_splits(tmp_path / "huge.json")


def test_what_cannot_be_read_is_refused(tmp_path):
    for ending in ENDINGS:
        with pytest.raises(SplitError, match=r"cannot read the splits .*: No such file"):
            probes.load_splits(tmp_path / f"none.{ending}")
    with pytest.raises(SplitError, match="is no regular file"):
        probes.load_splits(tmp_path)


leaves = st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=3)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v))


@settings(max_examples=150)
@given(data=st.data(), value=values)
def test_no_change_of_a_file_brings_anything_but_a_line(written, data, value):
    content = json.loads(written[0].read_text())
    before = probes.load_splits(written[0])
    place = content
    while isinstance(place, list | dict) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key, within = data.draw(st.sampled_from(keys)), place
        place = place[key]
        if data.draw(st.booleans()):
            break
    within[key] = value
    file = written[0].with_name("fuzzed.json")
    file.write_text(json.dumps(content))
    try:
        assert same(before, probes.load_splits(file))
    except SplitError as error:
        message = str(error)
        assert len(message.splitlines()) == 1


# ---- Parquet


def test_the_rows_of_a_parquet_file_are_the_splits(make_table, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    splits = probes.monte_carlo(make_table(), repeats=2, train=(0.2, 1.0))
    splits.save(tmp_path / "s.parquet")
    frame = pq.read_table(tmp_path / "s.parquet").to_pandas()
    for split in splits:
        rows = frame[(frame["repeat"] == split.repeat) & (frame["size"] == split.size)]
        found = [rows[rows["part"] == part]["id"].tolist() for part in ("train", "val", "test")]
        assert found == [split.train.tolist(), split.val.tolist(), split.test.tolist()]


def test_a_parquet_file_that_was_changed_is_refused_in_a_line(make_table, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "s.parquet"
    probes.monte_carlo(make_table(60), repeats=1, train=[1.0]).save(file)
    table = pq.read_table(file)
    ids = table["id"].to_pylist()

    def with_column(name, values):
        place = table.schema.names.index(name)
        return table.set_column(place, name, pa.array(values)).replace_schema_metadata(
            table.schema.metadata
        )

    for changed, message in [
        (table.replace_schema_metadata({}), "is not a file of splits of the format"),
        (table.slice(1), "it holds 59 rows, not those of its splits"),
        (with_column("id", [10**9, *ids[1:]]), "its rows hold an ID that was not split"),
        (with_column("id", list(map(str, ids))), "its rows hold an ID that was not split"),
        (with_column("id", [*ids[1:], ids[0]]), "are not those that were written"),
        (with_column("part", ["test"] * 60), "its rows are not in the order of its splits"),
        (with_column("split", [1] * 60), "its rows are not in the order of its splits"),
        (table.drop_columns("id"), r"are damaged: 'Field \"id\" does not exist"),
    ]:
        pq.write_table(changed, file)
        with pytest.raises(SplitError, match=message) as caught:
            probes.load_splits(file)
        assert len(str(caught.value).splitlines()) == 1
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(SplitError, match="cannot read the splits"):
        probes.load_splits(file)


# ---- the dataset


def test_the_same_annotations_in_another_order_are_the_same(make_table):
    table = make_table()
    splits = probes.monte_carlo(table, train=[1.0])
    splits.check(table)
    splits.check(in_another_order(table))


def test_other_annotations_are_refused_and_the_difference_is_named(make_table, tmp_path):
    table = make_table()
    table.ids = np.sort(table.ids)
    splits = saved(probes.monte_carlo(without(table, 2), train=[1.0]), tmp_path)
    other = without(table, 5)
    other.ids, other.labels = np.append(other.ids, [10, 11]), np.append(other.labels, ["x", "y"])
    other.labels[[0, 7]] = "relabelled"
    other.digest = "sha256:other"
    with pytest.raises(SplitError) as caught:
        splits.check(other)
    assert str(caught.value) == (
        "these splits are of 598 annotations of 'toy', and 'toy' holds others: "
        "3 of the splits are not in 'toy' (12, 13, 14); "
        "2 of 'toy' are not in the splits (10, 11); "
        f"2 labels differ (first: ID 15, in the splits '{table.labels[5]}', now 'relabelled'). "
        "Make new ones with 'featstore split'"
    )


def test_many_annotations_that_differ_are_named_by_the_first_three(make_table):
    table = make_table()
    table.ids = np.sort(table.ids)
    splits = probes.monte_carlo(table, train=[1.0])
    with pytest.raises(SplitError, match=r"9 of the splits are not in 'toy' \(first: 10, 11, 12\)"):
        splits.check(without(table, 9))


def test_ids_of_another_type_are_refused(make_table):
    table = make_table()
    splits = probes.monte_carlo(table, train=[1.0])
    other = replace(table, ids=table.ids.astype(str), digest="sha256:texts")
    with pytest.raises(SplitError, match=r"IDs here are such as 10, there such as '\d+'\. Make"):
        splits.check(other)


def test_labels_that_a_file_does_not_hold_are_compared_by_digest(make_table):
    table = make_table()
    by_hand = probes.Splits(
        "toy", "sha256:toy", "by hand", 0, {}, probes.monte_carlo(table, train=[1.0]).members
    )
    by_hand.check(table)
    with pytest.raises(SplitError, match=r"its digest is sha256:1\.\.\., not sha256:toy"):
        by_hand.check(in_another_order(table))


def test_ids_as_variable_width_strings_are_found(make_table):
    """NumPy's own search of these is wrong for more than 15 bytes."""
    table = make_table()
    texts = np.array([f"cell-{number:06d}-with-a-long-name" for number in table.ids])
    table = replace(table, ids=texts)
    splits = probes.monte_carlo(table, repeats=1, train=[1.0])
    splits.check(replace(table, ids=texts.astype(np.dtypes.StringDType()), digest="sha256:other"))
    variable = replace(table, ids=texts.astype(np.dtypes.StringDType()))
    assert probes.monte_carlo(variable, repeats=1, train=[1.0]).digest == splits.digest


def test_an_id_that_was_not_split_cannot_be_written(make_table, tmp_path):
    splits = probes.monte_carlo(make_table(), repeats=1, train=[1.0])
    strange = replace(splits[0], test=np.append(splits[0].test, 10**6))
    with pytest.raises(SplitError, match="1000000 of repeat 0, size 1 is not among the IDs"):
        replace(splits, members=(strange,)).save(tmp_path / "s.json")
    with pytest.raises(SplitError, match="cannot be written as JSON"):
        replace(splits, options={"draw": {1}}).save(tmp_path / "s.json")
    assert not list(tmp_path.iterdir())


def test_the_table_counts_classes_in_each_part(make_table):
    table = make_table()
    splits = probes.monte_carlo(table, repeats=1, train=(0.2, 1.0))
    frame = splits.to_frame()
    label_of = dict(zip(table.ids.tolist(), table.labels.tolist(), strict=True))
    for split, row in zip(splits, frame.to_dict("records"), strict=True):
        for part, ids in zip(("train", "val", "test"), parts(split), strict=True):
            assert row[f"n_{part}"] == len(ids)
            for name in ("mitotic figure", "look-alike"):
                assert row[f"n_{part} {name}"] == sum(label_of[each] == name for each in ids)
        assert (row["repeat"], row["size"], row["digest"]) == (0, split.size, split.digest)


def test_parquet_without_pyarrow_says_what_to_install(make_table, tmp_path, monkeypatch):
    splits = probes.monte_carlo(make_table(), train=[1.0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'featstore-probes\[exchange\]'"):
        splits.save(tmp_path / "s.parquet")


def test_a_table_of_the_least_columns_can_be_split():
    """Labels and IDs are enough for the first experiment."""
    ids = np.arange(100)
    table = Table(ids, np.where(ids % 2, "a", "b"), {})
    assert len(probes.monte_carlo(table, train=[1.0], stratify="label")) == 5


def test_of_tables_without_a_digest_ids_and_labels_are_compared(make_table):
    table = replace(make_table(), digest="")
    splits = probes.monte_carlo(table, train=[1.0])
    splits.check(table)
    with pytest.raises(SplitError, match=r"\d+ labels differ \(first: ID"):
        splits.check(replace(table, labels=table.labels[::-1].copy()))
