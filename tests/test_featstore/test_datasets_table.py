import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featstore.datasets.table import read_patch_table
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
    )
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
    cells = read_patch_table(csv, name="lab")
    assert cells.ids.tolist() == [1, 2]
    assert cells.images.tolist() == ["a.png", "kept/b.png"]
    assert cells.domains.tolist() == ["d1", "d2"]
    assert cells.column("tumour_grade")[0] == 2


def test_ids_with_leading_zeros_stay_strings(folder):
    csv = write(folder, "id,file,label\n007,a.png,x\n8,b.png,y\n")
    assert read_patch_table(csv, name="lab").ids.tolist() == ["007", "8"]


def test_names_of_slides_domains_and_the_like_stay_text(folder):
    csv = write(folder, "id,file,label,slide,domain,Case,scanner,patient\n1,a.png,x,001,1,2,3,4\n")
    cells = read_patch_table(csv, name="lab")
    assert cells.slides.tolist() == ["001"]
    found = [cells.column(name)[0] for name in ("domain", "case", "scanner", "patient")]
    assert found == ["1", "2", "3", "4"]
    assert read_patch_table(csv, name="lab", slide="patient").slides.tolist() == ["4"]


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
    found = read_patch_table(csv, name="lab").column("further")
    assert found.dtype == np.array(column).dtype
    np.testing.assert_array_equal(found, column)


@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3))
def test_any_integer_of_64_bits_comes_back_as_it_was(folder, numbers):
    rows = "".join(f"{n},a.png,x,{number}\n" for n, number in enumerate(numbers))
    csv = write(folder, "id,file,label,further\n" + rows)
    assert read_patch_table(csv, name="lab").column("further").tolist() == numbers


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
    cells = read_patch_table(write(folder, text), name="lab")
    assert (cells.ids.tolist(), cells.labels.tolist()) == ([1], ["x, y"])
    assert (cells.images.tolist(), cells.column("grade").tolist()) == (["a.png"], [2])
    assert set(cells.columns) - {"size_mm"} == {"image", "grade"}


def test_blanks_at_the_ends_of_labels_make_no_second_class(folder):
    csv = write(folder, "id,file,label\n1,a.png,normal \n2,b.png, normal\n3,c.png,normal\n")
    assert set(read_patch_table(csv, name="lab").labels) == {"normal"}


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
    cells = read_patch_table(csv, name="lab", id="uid", file="png", label="kind", slide="case")
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
