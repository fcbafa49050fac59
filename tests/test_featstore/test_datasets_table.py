import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.datasets.table import read_centre_table, read_patch_table
from featstore.errors import AnnotationError, ImageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "kept").mkdir()
    for name in ("a.png", "kept/b.png", "kept/c.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text, encoding="utf-8"):
    (folder / "labels.csv").write_text(text, encoding=encoding, newline="")
    return folder / "labels.csv"


def test_the_real_patches_are_taken_as_they_are(real_data):
    home = real_data / "ami_br_midog21_train"
    cells = read_patch_table(
        home / "labels.csv", name="ami-br", id="uid", file="dataset_uid", label="final_label"
    ).table
    assert len(cells) == 1_292
    assert (cells.labels == "Atypical").sum() == 307
    assert len(set(cells.slides)) == 99
    assert cells.images[0] == "normal/MIDOG21_6.png"
    assert cells.x[:2].tolist() == [4422, 1867]
    assert {"expert1_label", "majority_atypical"} <= set(cells.columns)


def test_default_columns_need_no_options_and_others_are_kept(folder):
    csv = write(
        folder, "id,file,label,slide,domain,Tumour Grade\n1,a.png,x,s1,d1,2\n2,b.png,y,s1,d2,\n"
    )
    cells = read_patch_table(csv, name="lab").table
    assert cells.ids.tolist() == [1, 2]
    assert cells.images.tolist() == ["a.png", "kept/b.png"]
    assert cells.domains.tolist() == ["d1", "d2"]
    assert cells.column("tumour_grade")[0] == 2


def test_ids_with_leading_zeros_stay_strings(folder):
    csv = write(folder, "id,file,label\n007,a.png,x\n8,b.png,y\n")
    assert read_patch_table(csv, name="lab").table.ids.tolist() == ["007", "8"]


def test_names_of_slides_domains_and_the_like_stay_text(folder):
    csv = write(folder, "id,file,label,slide,domain,Case,scanner,patient\n1,a.png,x,001,1,2,3,4\n")
    cells = read_patch_table(csv, name="lab").table
    assert cells.slides.tolist() == ["001"]
    found = [cells.column(name)[0] for name in ("domain", "case", "scanner", "patient")]
    assert found == ["1", "2", "3", "4"]
    assert read_patch_table(csv, name="lab", slide="patient").table.slides.tolist() == ["4"]


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        ("1", "-2", [1, -2]),
        ("0.25", "", [0.25, np.nan]),
        ("1", "2.50", [1.0, 2.5]),
        ("1e-05", "0.1", [1e-05, 0.1]),
        ("9007199254740993", "1", [9007199254740993, 1]),
        ("9223372036854775808", "1", ["9223372036854775808", "1"]),
        ("9007199254740993", "", ["9007199254740993", ""]),
        ("0.1234567890123456", "1", ["0.1234567890123456", "1"]),
        ("007", "8", ["007", "8"]),
        ("+1", "2", ["+1", "2"]),
        ("1e5", "2", ["1e5", "2"]),
        ("nan", "2", ["nan", "2"]),
        ("1_000", "2", ["1_000", "2"]),
    ],
)
def test_a_column_becomes_numbers_only_where_that_loses_nothing(folder, first, second, column):
    csv = write(folder, f"id,file,label,further\n1,a.png,x,{first}\n2,b.png,x,{second}\n")
    found = read_patch_table(csv, name="lab").table.column("further")
    assert found.dtype == np.array(column).dtype
    np.testing.assert_array_equal(found, column)


@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3))
def test_any_integer_of_64_bits_comes_back_as_it_was(folder, numbers):
    rows = "".join(f"{n},a.png,x,{number}\n" for n, number in enumerate(numbers))
    csv = write(folder, "id,file,label,further\n" + rows)
    assert read_patch_table(csv, name="lab").table.column("further").tolist() == numbers


@pytest.mark.parametrize(
    "text",
    [
        "id;file;label;grade\n1;a.png;x, y;2\n",
        "id\tfile\tlabel\tgrade\n1\ta.png\tx, y\t2\n",
        '\ufeffid,file,label,grade\n1,a.png,"x, y",2\n',
        'id,file,label,grade\r\n1,a.png,"x, y",2\r\n',
        ' id , file,label ,grade\n1, a.png , "x, y",2 \n',
        'id,file,label,grade,\n1,a.png,"x, y",2,\n',
        'id,file,label,grade\n1,a.png,"x, y",2,,\n',
        '\nid,file,label,grade\n\n1,a.png,"x, y",2\n\n',
        "id;file;label;grade;size, mm\n1;a.png;x, y;2;3\n",
    ],
)
def test_spellings_of_a_csv_that_mean_one_thing_are_read_alike(folder, text):
    cells = read_patch_table(write(folder, text), name="lab").table
    assert (cells.ids.tolist(), cells.labels.tolist()) == ([1], ["x, y"])
    assert (cells.images.tolist(), cells.column("grade").tolist()) == (["a.png"], [2])
    assert set(cells.columns) - {"size_mm"} == {"image", "grade"}


def test_blanks_at_the_ends_of_labels_make_no_second_class(folder):
    csv = write(folder, "id,file,label\n1,a.png,normal \n2,b.png, normal\n3,c.png,normal\n")
    assert set(read_patch_table(csv, name="lab").table.labels) == {"normal"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,file;label\n1,a.png;x\n", "header of .*labels.csv holds ',' and ';', and which of"),
        ("id,file,label\n1,a.png,x\n2,b.png,y,z\n", "row 2 of .*labels.csv has 4 values and the"),
        ("id,file,label\n1,a.png,x,z\n", "row 1 of .*labels.csv has 4 values and the header 3"),
        (
            'id,file,label\n1,"a.png,x\n',
            "labels.csv is not a CSV with a header: line 2: unexpected",
        ),
        ("id,file,label\n1,a.png,x\n ,b.png,y\n", "row 2 of .*labels.csv has nothing in 'id'"),
        ("id,file,label,label\n1,a.png,x,y\n", "labels.csv has two columns 'label'; rename one"),
        (
            "id,file,label,Grade,grade\n1,a.png,x,1,2\n",
            "columns 'Grade' and 'grade' of .* would both be called 'grade'; rename one",
        ),
    ],
)
def test_a_csv_that_could_mean_several_things_is_refused_in_one_line(folder, text, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_patch_table(write(folder, text), name="lab")
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_not_in_utf_8_is_refused(folder):
    csv = write(folder, "id,file,label\n1,a.png,bösartig\n", encoding="latin-1")
    with pytest.raises(AnnotationError, match=r"labels\.csv is not a CSV in UTF-8"):
        read_patch_table(csv, name="lab")


def test_columns_with_the_names_that_a_table_needs_are_kept_under_others(folder):
    header = "uid,png,kind,id,file,LABEL,Image,c,zarr.json,case,slide,,高さ"
    csv = write(folder, header + "\n1,a.png,x,i,f,l,m,c,z,s,old,u,9\n")
    cells = read_patch_table(
        csv, name="lab", id="uid", file="png", label="kind", slide="case"
    ).table
    assert {name: values.tolist()[0] for name, values in cells.columns.items()} == {
        "image": "a.png",
        "slide": "s",
        "csv_id": "i",
        "file": "f",
        "csv_label": "l",
        "csv_image": "m",
        "csv_c": "c",
        "csv_zarr.json": "z",
        "csv_slide": "old",
        "unnamed_11": "u",
        "column_12": 9,
    }


def test_a_missing_column_names_those_there_and_the_option(folder):
    csv = write(folder, "uid,file,label\n1,a.png,x\n")
    with pytest.raises(
        AnnotationError,
        match=r"no column 'id' for the id; it has uid, file, label\. "
        "Name one with --id",
    ):
        read_patch_table(csv, name="lab")
    with pytest.raises(AnnotationError, match="no column 'case' for the slide"):
        read_patch_table(csv, name="lab", id="uid", slide="case")


@pytest.mark.parametrize(
    "text",
    [
        "id,file,label\n1,a.png,\n",
        "id,file,label\n1,a.png,x\n1,b.png,y\n",
        "id,file,label\n,a.png,x\n",
        "id,file,label\n",
    ],
)
def test_rows_without_label_or_id_of_their_own_are_refused(folder, text):
    with pytest.raises(AnnotationError):
        read_patch_table(write(folder, text), name="lab")


def test_a_missing_patch_file_is_named(folder):
    csv = write(folder, "id,file,label\n1,z.png,x\n")
    with pytest.raises(ImageError, match=r"patch file 'z.png' is missing in"):
        read_patch_table(csv, name="lab")


def test_a_file_of_the_same_name_in_another_folder_is_not_taken(folder):
    csv = write(folder, "id,file,label\n1,other/b.png,x\n")
    with pytest.raises(ImageError, match=r"patch file 'other/b.png' is missing in"):
        read_patch_table(csv, name="lab")


def test_a_name_that_stands_for_two_files_is_refused(folder):
    (folder / "other").mkdir()
    (folder / "other" / "b.png").touch()
    csv = write(folder, "id,file,label\n1,b.png,x\n")
    with pytest.raises(ImageError, match=r"could be any of kept/b.png, other/b.png"):
        read_patch_table(csv, name="lab")


@pytest.mark.parametrize("escape", ["../outside.png", "/etc/hostname"])
def test_a_path_out_of_the_folder_is_refused(folder, escape):
    csv = write(folder, f"id,file,label\n1,{escape},x\n")
    with pytest.raises(ImageError, match="is not a path within"):
        read_patch_table(csv, name="lab")


def test_further_texts_of_a_label_are_kept_or_mapped_as_the_caller_says(folder):
    csv = write(folder, "id,file,label\n1,a.png,Hard negative\n2,b.png,mitotic figure\n")
    reading = read_patch_table(csv, name="lab")
    assert reading.table.labels.tolist() == ["Hard negative", "mitotic figure"]
    assert reading.notes == (
        "label 'Hard negative' is kept as it stands; --map-label 'Hard negative=look-alike' gives "
        "it the name it has in other datasets",
    )
    mapped = read_patch_table(csv, name="lab", labels={"hard negative": "look-alike"})
    assert mapped.table.labels.tolist() == ["look-alike", "mitotic figure"]
    assert mapped.notes == ()
    with pytest.raises(AnnotationError, match="has no class 'c' to give a label"):
        read_patch_table(csv, name="lab", labels={"c": "d"})


def test_a_patch_file_of_a_name_that_no_system_allows_is_missing(folder):
    csv = write(folder, f"id,file,label\n1,{'a' * 5_000},x\n")
    with pytest.raises(ImageError, match="is missing in"):
        read_patch_table(csv, name="lab")


def test_a_text_that_would_fill_the_memory_is_refused(folder):
    rows = "".join(f"{n},a.png,x,\n" for n in range(3_000))
    csv = write(folder, f"id,file,label,remark\n{rows}3000,a.png,x,{'r' * 120_000}\n")
    with pytest.raises(AnnotationError, match=r"'remark' of .* holds a text of 120,000 characters"):
        read_patch_table(csv, name="lab")


def test_centres_come_with_image_and_slide(tmp_path):
    csv = write(tmp_path, "id,image,x,y,label,Grade\n1,a/1.svs,10.5,+20,m,2\n2,b.svs,1e3,-4,h,3\n")
    cells = read_centre_table(csv, name="lab").table
    assert (cells.x.tolist(), cells.y.tolist()) == ([10.5, 1000], [20, -4])
    assert cells.x.dtype == np.float64
    assert cells.images.tolist() == ["a/1.svs", "b.svs"]
    assert cells.slides.tolist() == ["1", "b"]
    assert cells.column("grade").tolist() == [2, 3]


def test_columns_of_centres_are_named_by_the_caller(tmp_path):
    csv = write(tmp_path, "uid;wsi;cx;cy;x;kind;case;slide\n7;w.svs;1;2;old;m;007;s\n")
    options = {"id": "uid", "file": "wsi", "x": "cx", "y": "cy", "label": "kind", "slide": "case"}
    cells = read_centre_table(csv, name="lab", **options).table
    assert (cells.x.tolist(), cells.y.tolist(), cells.slides.tolist()) == ([1], [2], ["007"])
    assert cells.column("csv_x").tolist() == ["old"]
    assert cells.column("csv_slide").tolist() == ["s"]


def test_the_image_column_is_called_image_or_file(tmp_path):
    csv = write(tmp_path, "id,file,x,y,label\n1,a.svs,1,2,m\n")
    assert read_centre_table(csv, name="lab").table.images.tolist() == ["a.svs"]
    csv = write(tmp_path, "id,file,image,x,y,label\n1,row.txt,a.svs,1,2,m\n")
    cells = read_centre_table(csv, name="lab").table
    assert cells.images.tolist() == ["a.svs"]
    assert cells.column("file").tolist() == ["row.txt"]
    csv = write(tmp_path, "id,x,y,label\n1,1,2,m\n")
    with pytest.raises(AnnotationError, match="has no column 'file' for the file; it has id, x"):
        read_centre_table(csv, name="lab")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,a.svs,here,2,m", r"row 1 of .* has 'here' in 'x'; a finite number of pixels"),
        ("1,a.svs,1,,m", r"row 1 of .* has '' in 'y'; a finite number"),
        ("1,a.svs,nan,2,m", r"row 1 of .* has 'nan' in 'x'; a finite number"),
        ("1,a.svs,1,inf,m", r"row 1 of .* has 'inf' in 'y'; a finite number"),
        ("1,a.svs,1_0,2,m", r"row 1 of .* has '1_0' in 'x'; a finite number"),
        ("1,,1,2,m", r"row 1 of .* has nothing in 'image'; every annotation is on an image"),
        (",a.svs,1,2,m", r"row 1 of .* has nothing in 'id'; every annotation needs an ID"),
        ("1,a.svs,1,2,", "1 annotations of 'lab' have no label"),
    ],
)
def test_a_centre_that_is_none_is_refused_in_one_line(tmp_path, row, message):
    csv = write(tmp_path, f"id,image,x,y,label\n{row}\n")
    with pytest.raises(AnnotationError, match=message) as caught:
        read_centre_table(csv, name="lab")
    assert "\n" not in str(caught.value)


@pytest.fixture
def write_parquet(folder):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write_table(columns, **options):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, folder / "labels.parquet", **options)
        return folder / "labels.parquet"

    return write_table


PATCHES = {"id": [1, 2], "file": ["a.png", "b.png"], "label": ["x", "y"]}


def test_a_parquet_file_of_patches_is_read_as_a_csv_is(folder, write_parquet):
    columns = PATCHES | {
        "slide": ["001", None],
        "grade": [2, 3],
        "share": [0.5, None],
        "c": ["", "d"],
    }
    from_parquet = read_patch_table(write_parquet(columns), name="lab").table
    csv = write(folder, "id,file,label,slide,grade,share\n1,a.png,x,001,2,0.5\n2,b.png,y,,3,\n")
    from_csv = read_patch_table(csv, name="lab").table
    assert from_parquet.images.tolist() == ["a.png", "kept/b.png"]
    assert from_parquet.column("parquet_c").tolist() == ["", "d"]
    for column in ("id", "label", *from_csv.columns):
        np.testing.assert_array_equal(from_parquet.column(column), from_csv.column(column))
        assert from_parquet.column(column).dtype == from_csv.column(column).dtype


def test_centres_in_a_parquet_file_lose_nothing(write_parquet):
    columns = {
        "id": ["a-1", "a-2"],
        "image": ["1.svs", "2.svs"],
        "x": [10.5, 1 / 3],
        "y": [1, 2],
        "label": [0, 1],
    }
    cells = read_centre_table(write_parquet(columns), name="lab").table
    assert cells.ids.tolist() == ["a-1", "a-2"]
    assert (cells.x.tolist(), cells.y.tolist()) == ([10.5, 1 / 3], [1, 2])
    assert cells.labels.tolist() == ["0", "1"]
    assert cells.slides.tolist() == ["1", "2"]


def test_types_of_a_parquet_file_are_kept_and_gaps_lose_nothing(write_parquet):
    pa = pytest.importorskip("pyarrow")
    further = {
        "whole": pa.array([2**62, -1]),
        "gap": pa.array([7, None]),
        "large_gap": pa.array([2**53 + 1, None]),
        "small": pa.array([1, 2], pa.uint8()),
        "half": pa.array(np.array([0.5, 0.25], np.float16)),
        "flag": pa.array([True, False]),
        "flag_gap": pa.array([True, None]),
        "digits": pa.array(["007", None]),
        "day": pa.array([0, None], pa.date32()),
        "kind": pa.array(["a", None]).dictionary_encode(),
        "scanner": pa.array([1, None]),
        "large": pa.array(["u", "v"], pa.large_string()),
        "embedding": pa.array([[1.0, 2.0], [3.0, 4.0]]),
        "record": pa.array([{"a": 1}, {"a": 2}]),
        "raw": pa.array([b"1", b"2"]),
    }
    file = write_parquet({key: pa.array(value) for key, value in PATCHES.items()} | further)
    reading = read_patch_table(file, name="lab")
    found = {name: reading.table.column(name) for name in further if name in reading.table.columns}
    assert {name: column.tolist() for name, column in found.items() if name != "gap"} == {
        "whole": [2**62, -1],
        "large_gap": [str(2**53 + 1), ""],
        "small": [1, 2],
        "half": [0.5, 0.25],
        "flag": [True, False],
        "flag_gap": ["True", ""],
        "digits": ["007", ""],
        "day": ["1970-01-01", ""],
        "kind": ["a", ""],
        "scanner": ["1", ""],
        "large": ["u", "v"],
    }
    np.testing.assert_array_equal(found["gap"], [7, np.nan])
    assert (found["small"].dtype, found["half"].dtype) == (np.uint8, np.float32)
    assert list(map(str, reading.left_out)) == [
        "3 columns of lists, records or bytes (embedding, record, raw)"
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (PATCHES | {"id": [1.0, 2.0]}, "column 'id' of .* holds double; IDs are integers or texts"),
        (
            PATCHES | {"id": [True, False]},
            "column 'id' of .* holds bool; IDs are integers or texts",
        ),
        (PATCHES | {"id": [1, None]}, "row 2 of .* has nothing in 'id'"),
        (PATCHES | {"id": ["", "b"]}, "row 1 of .* has nothing in 'id'"),
        (PATCHES | {"label": ["x", None]}, "1 annotations of 'lab' have no label"),
        ({"id": [1], "file": ["a.png"]}, "has no column 'label' for the label; it has id, file"),
        ({"id": [], "file": [], "label": []}, "holds no rows; one row per annotation"),
    ],
)
def test_a_parquet_file_that_will_not_do_is_refused_in_one_line(write_parquet, columns, message):
    with pytest.raises(AnnotationError, match=message) as caught:
        read_patch_table(write_parquet(columns), name="lab")
    assert "\n" not in str(caught.value)


def test_two_parquet_columns_of_one_name_are_refused(write_parquet):
    pa = pytest.importorskip("pyarrow")
    columns = [*map(pa.array, PATCHES.values()), pa.array(["p", "q"])]
    file = write_parquet(pa.Table.from_arrays(columns, names=[*PATCHES, "label"]))
    with pytest.raises(AnnotationError, match="has two columns 'label'; rename one"):
        read_patch_table(file, name="lab")


def test_a_damaged_parquet_file_is_refused_in_one_line(write_parquet):
    file = write_parquet(PATCHES)
    whole = file.read_bytes()
    for content in (whole[:4], whole[:-9], whole[: len(whole) // 2], b"PAR1" + bytes(50)):
        file.write_bytes(content)
        with pytest.raises(AnnotationError, match="cannot be read as Parquet") as caught:
            read_patch_table(file, name="lab")
        assert "\n" not in str(caught.value)


def test_a_small_parquet_file_that_unfolds_into_gigabytes_is_refused(write_parquet):
    pa = pytest.importorskip("pyarrow")
    n = 40_000
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), ["r" * 50_000])
    columns = {
        "id": pa.array(np.arange(n)),
        "file": pa.array(["a.png"] * n),
        "label": pa.array(["x"] * n),
        "remark": long,
    }
    file = write_parquet(columns)
    assert file.stat().st_size < 2**20
    with pytest.raises(
        AnnotationError, match=r"'remark' of .* holds a text of 50,000 bytes, too lo"
    ):
        read_patch_table(file, name="lab")
