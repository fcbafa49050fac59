"""Splits that a column of the table or a published file names."""

import hashlib

import numpy as np
import pytest

import probes
from probes.errors import OneClassError, SplitError
from tests.test_probes.splitting import column_of, counts, is_disjoint, parts, read_midogpp


@pytest.fixture
def published(make_table):
    """A table whose column 'split' names three parts by slide, and a writer of such files."""
    table = make_table()
    slides = table.column("slide").astype(int)
    table.columns["split"] = np.array(["Train", "val", "test"])[np.minimum(slides % 5 // 2, 2)]
    return table


@pytest.fixture
def write(tmp_path):
    """Write a file of parts by slide; the options break it in one way each."""

    def write_file(rows, name="slides.csv"):
        (tmp_path / name).write_text("\n".join(rows) + "\n")
        return tmp_path / name

    return write_file


def by_slide(table, part="split"):
    """Slide and part of the table, each slide once."""
    pairs = dict(zip(table.column("slide").tolist(), table.column(part).tolist(), strict=True))
    return sorted(pairs.items())


def ids_of(table, part):
    return set(table.ids[np.char.lower(table.column("split")) == part].tolist())


def test_the_parts_are_those_that_the_column_names(published):
    (split,) = probes.predefined(published, column="split")
    assert parts(split) == [ids_of(published, part) for part in ("train", "val", "test")]
    assert split.test.tolist() == sorted(split.test.tolist())


def test_sizes_are_nested_and_a_validation_part_that_is_named_is_whole_at_all(published):
    splits = probes.predefined(published, column="split", repeats=2, train=(0.1, 1.0))
    assert [split.name for split in splits[:2]] == ["repeat 0, size 0.1", "repeat 0, size 1"]
    small, large, other, _ = splits
    assert parts(small)[0] <= parts(large)[0]
    assert len(small.train) == round(0.1 * len(large.train))
    assert small.train.tolist() != other.train.tolist()
    for split in splits:
        assert parts(split)[1:] == [ids_of(published, part) for part in ("val", "test")]
    assert splits.options["val_drawn"] is False


@pytest.mark.parametrize("group", [None, "slide"])
@pytest.mark.parametrize("stratify", [None, "label"])
def test_validation_that_is_not_named_is_drawn_of_training_and_that_is_kept(
    published, group, stratify
):
    published.columns["split"] = np.where(published.columns["split"] == "test", "test", "train")
    splits = probes.predefined(
        published, column="split", repeats=3, group=group, stratify=stratify, seed=5
    )
    assert (splits.options["val_drawn"], splits.options["val"], splits.seed) == (True, 0.2, 5)
    slide_of, training = column_of(published, "slide"), ids_of(published, "train")
    for split in splits:
        train, val, test = parts(split)
        assert is_disjoint(split)
        assert train | val == training
        assert test == ids_of(published, "test")
        if group is None:
            assert len(val) == int(0.2 * len(training))
        else:
            assert not {slide_of[each] for each in train} & {slide_of[each] for each in val}
    assert len({split.digest for split in splits}) == 3


def test_strata_keep_their_shares_in_what_is_drawn(published):
    published.columns["split"] = np.where(published.columns["split"] == "test", "test", "train")
    small, large = probes.predefined(published, column="split", train=(0.3, 1.0), stratify="domain")
    value_of = column_of(published, "domain")
    for part, whole in ((small.train, large.train), (small.val, large.val)):
        due = counts(whole, value_of) * len(part) / len(whole)
        assert np.abs(counts(part, value_of) - due).max() <= 1


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("names", [("slide", "split"), ("Slide", "Dataset"), ("File", "Subset")])
def test_a_file_names_the_parts_of_slides(published, write, separator, names):
    rows = [separator.join([*names, "tumour"])]
    rows += [separator.join([slide, part, "x"]) for slide, part in by_slide(published)]
    file = write(rows)
    splits = probes.predefined(published, file=file)
    assert splits[0].digest == probes.predefined(published, column="split")[0].digest
    assert splits.options["file"] == "slides.csv"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert splits.options["file_digest"] == f"sha256:{digest}"
    assert (splits.options["key"], splits.options["part"]) == names


def test_a_file_names_the_parts_of_annotations(published, write):
    rows = zip(published.ids.tolist(), published.column("split").tolist(), strict=True)
    file = write(["id,split", *(f"{number},{part}" for number, part in rows)])
    splits = probes.predefined(published, file=file)
    assert splits[0].digest == probes.predefined(published, column="split")[0].digest


def test_any_columns_of_a_file_can_be_named(published, write):
    published.columns["patient"] = published.columns["slide"]
    file = write(["P,x,Y", *(f"{slide},0,{part}" for slide, part in by_slide(published))])
    splits = probes.predefined(published, file=file, key="P", part="Y", by="patient")
    assert splits[0].digest == probes.predefined(published, column="split")[0].digest


def test_slides_are_found_by_their_names_without_ending_and_leading_zeros(published, write):
    published.columns["slide"] = np.array([f"{int(s):03d}" for s in published.columns["slide"]])
    for style in ("{}", "{:02d}.tiff", "images/{:04d}.svs"):
        rows = [f"{style.format(int(slide))},{part}" for slide, part in by_slide(published)]
        splits = probes.predefined(published, file=write(["file,split", *rows]))
        assert splits[0].digest == probes.predefined(published, column="split")[0].digest


def test_names_of_two_slides_that_are_the_same_without_zeros_are_refused(published, write):
    slides = published.columns["slide"].astype(object)
    slides[slides == "1"], slides[slides == "2"] = "01", "001"
    published.columns["slide"] = slides.astype(str)
    file = write(["slide,split", *(f"{number}.tiff,train" for number in range(30))])
    with pytest.raises(SplitError, match="'001' and '01' are both '1' in the slides of the annot"):
        probes.predefined(published, file=file)


def test_other_names_of_parts_are_refused_until_they_are_explained(published):
    published.columns["split"] = np.where(
        published.columns["split"] == "val", "external", published.columns["split"]
    )
    n = np.sum(published.columns["split"] == "external")
    with pytest.raises(
        SplitError,
        match=rf"column 'split' names the parts external \({n} annotations\); parts are train, val "
        "and test: say what others mean, such as names={'external': 'test'}",
    ):
        probes.predefined(published, column="split")
    (split,) = probes.predefined(published, column="split", names={"External": "test"})
    assert parts(split)[2] == ids_of(published, "test") | ids_of(published, "external")
    (split,) = probes.predefined(published, column="split", names={"external": ""})
    assert set().union(*parts(split)) == ids_of(published, "train") | ids_of(published, "test")
    with pytest.raises(SplitError, match="names means 'tset', which is no part; parts are train"):
        probes.predefined(published, column="split", names={"external": "tset"})


def test_slides_that_the_dataset_has_not_are_refused_by_name_or_left_out(published, write):
    rows = [f"{slide},{part}" for slide, part in by_slide(published)]
    file = write(["slide,split", *rows, "98,train", "99,test"])
    with pytest.raises(
        SplitError,
        match=r"slides.csv names 2 of 32 slide that 'toy' does not have \('98', '99'\); leave them",
    ):
        probes.predefined(published, file=file)
    splits = probes.predefined(published, file=file, unknown="ignore")
    assert splits[0].digest == probes.predefined(published, column="split")[0].digest


def test_annotations_without_a_part_are_refused_by_id_or_left_out(published, write):
    slides = by_slide(published)
    file = write(["slide,split", *(f"{slide},{part}" for slide, part in slides[1:])])
    without = np.sort(published.ids[published.column("slide") == slides[0][0]])
    with pytest.raises(
        SplitError,
        match=rf"slides.csv gives {len(without)} of 600 annotations of 'toy' no part \(first: "
        rf"{without[0]}, {without[1]}, {without[2]}\); name one for each, or leave them out with",
    ):
        probes.predefined(published, file=file)
    (split,) = probes.predefined(published, file=file, names={"": ""})
    assert set().union(*parts(split)) == set(published.ids.tolist()) - set(without.tolist())


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_that_nothing_is_in_is_refused(published, part):
    published.columns["split"] = np.full(600, {"train": "test", "test": "train"}[part])
    with pytest.raises(SplitError, match=f"column 'split' names no {part} part of 'toy'; it has"):
        probes.predefined(published, column="split")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["slide,split", "1,train", "1,test"], "puts slide '1' into 'train' and into 'test'"),
        (["slide,split", "1,train,x"], "line 2 of .* has 3 values under 2 columns"),
        (["slide,split"], "names no slide; a line for each"),
        (["slide,fold", "1,0"], "has no column like split, part, .*; it has slide, fold: name one"),
        (["number,split", "1,0"], "has no column like id, .*; it has number, split: name one as k"),
        ([""], "is empty"),
        (["slide,split", '1,"tr\x00ain"'], "names the parts tr|line contains NUL"),
    ],
)
def test_a_file_that_is_no_table_of_parts_is_refused_in_a_line(published, write, rows, message):
    with pytest.raises(SplitError, match=message) as caught:
        probes.predefined(published, file=write(rows), unknown="ignore", names={"": ""})
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_cannot_be_read_is_refused_in_a_line(published, write, tmp_path):
    with pytest.raises(SplitError, match=r"cannot read the parts .*none.csv: No such file"):
        probes.predefined(published, file=tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("slide,split\n1,prüfung\n".encode("latin-1"))
    with pytest.raises(SplitError, match=r"latin.csv is no table of parts: it is not UTF-8 text"):
        probes.predefined(published, file=tmp_path / "latin.csv")
    file = write(["slide,split", "1,train"])
    with pytest.raises(SplitError, match="has no column 'Part'; it has slide, split: name one as"):
        probes.predefined(published, file=file, part="Part")


def test_one_source_of_parts_is_needed(published):
    for given in ({}, {"column": "split", "file": "x.csv"}):
        with pytest.raises(SplitError, match="come from column=NAME or from file=PATH; give one"):
            probes.predefined(published, **given)
    with pytest.raises(SplitError, match="unknown='skip' is unknown; give 'refuse' or 'ignore'"):
        probes.predefined(published, file="x.csv", unknown="skip")


def test_a_training_part_of_one_class_is_treated_as_everywhere(published):
    trains = published.columns["split"] == "Train"
    published.labels = np.where(trains, "look-alike", published.labels)
    with pytest.raises(OneClassError, match="hold no 'mitotic figure'"):
        probes.predefined(published, column="split")
    with pytest.raises(OneClassError, match="to draw from hold no 'mitotic figure'; no draw will"):
        probes.predefined(published, column="split", one_class="redraw")
    assert len(probes.predefined(published, column="split", one_class="keep")) == 1


def test_the_official_split_of_midogpp_is_read_from_its_table(real_data):
    """503 slides, 111 of them tested; the table numbers slides 1 to 553, images are 001.tiff."""
    table = read_midogpp(real_data)
    file = real_data / "annotations" / "datasets_xvalidation.csv"
    (split,) = probes.predefined(table, file=file, group="slide")
    slide_of = column_of(table, "slide")
    train, val, test = ({slide_of[each] for each in part} for part in parts(split))
    assert len(test) == 111
    assert len(train | val) == 392
    assert not train & val
    assert sum(map(len, parts(split))) == 26_286
    line = next(row for row in file.read_text().splitlines() if row.split(";")[1] == "test")
    assert line.split(";")[0].zfill(3) in test
