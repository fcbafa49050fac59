import pytest

from featstore.datasets.table import read_patch_table
from featstore.errors import AnnotationError, ImageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "kept").mkdir()
    for name in ("a.png", "kept/b.png", "kept/c.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text):
    (folder / "labels.csv").write_text(text)
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
