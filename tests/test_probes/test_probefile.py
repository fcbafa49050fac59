"""Probes as files: what is written is read, and what comes from a stranger is refused or safe."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import probes
from probes import probefile
from probes.errors import ProbesError

LABELS = {
    "texts": ["mitotic figure", "look-alike", "Ähnliches"],
    "numbers": [3, 1, 2],
    "truths": [True, False],
    "floats": [1.0, 2.0],
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("as_objects", [False, True])
def test_a_saved_probe_is_the_same_probe(kind, as_objects, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 5))
    y = np.array(LABELS[kind], dtype=object if as_objects else None)
    y = y[np.arange(90) % len(y)]
    if as_objects and kind != "texts":
        y = y.astype(type(LABELS[kind][0]))
    probe = probes.LogisticProbe(
        "l2", C=[0.1, 1.0], standardize=True, class_weight={LABELS[kind][0]: 2.0}, max_iter=300
    )
    probe.fit(X, y, X_val=X, y_val=y)
    probe.save(tmp_path / "probe.npz")
    loaded = probes.LogisticProbe.load(tmp_path / "probe.npz")
    assert loaded.get_params() == probe.get_params()
    assert np.array_equal(loaded.predict_proba(X), probe.predict_proba(X))
    assert loaded.predict(X).tolist() == probe.predict(X).tolist()
    for name in ("C_", "objective_", "n_iter_", "converged_", "collapsed_", "n_features_in_"):
        assert getattr(loaded, name) == getattr(probe, name)


def test_a_saved_probe_can_be_read_with_numpy_alone_and_says_what_wrote_it(data, tmp_path):
    probe = probes.LogisticProbe("l2").fit(*data)
    probe.save(tmp_path / "probe.npz")
    with np.load(tmp_path / "probe.npz", allow_pickle=False) as file:
        metadata = json.loads(file["metadata"].tobytes())
        assert np.array_equal(file["coef"], probe.coef_)
        assert file["classes"].tolist() == ["a", "b"]
    assert metadata["format"] == "featstore-probes linear probe"
    assert set(metadata["versions"]) == {"featstore-probes", "numpy", "scikit-learn"}
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]


def test_a_probe_that_cannot_be_written_leaves_what_was_there(data, tmp_path):
    (tmp_path / "probe.npz").write_text("older")
    probe = probes.LogisticProbe("l2").fit(*data)
    probe.coef_ = probe.coef_.astype(object)  # which only a pickle could hold
    with pytest.raises(ValueError, match="allow_pickle=False"):
        probe.save(tmp_path / "probe.npz")
    assert (tmp_path / "probe.npz").read_text() == "older"
    assert [path.name for path in tmp_path.iterdir()] == ["probe.npz"]


@pytest.fixture
def saved(data, tmp_path):
    """Arrays and metadata of a saved probe, and how to write others."""
    path = tmp_path / "probe.npz"
    probes.LogisticProbe("l2").fit(*data).save(path)
    arrays, metadata = probefile.read(path)

    def write(*, without=(), more=None, **changes):
        text = metadata | {name: changes.pop(name) for name in set(metadata) & set(changes)}
        parts = arrays | {"metadata": np.frombuffer(json.dumps(text).encode(), np.uint8)}
        parts = {name: part for name, part in (parts | changes).items() if name not in without}
        np.savez(path, **parts, **(more or {}))
        return path

    return write


def test_a_probe_that_was_not_changed_is_read(saved):
    assert probes.LogisticProbe.load(saved()).C_ == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": np.array(["a", object()], dtype=object)}, "is of type object"),
        ({"coef": np.zeros((1, 12), complex)}, "coef.npy is of type complex128"),
        ({"coef": np.zeros((2, 12))}, "do not fit each other"),
        ({"coef": np.full((1, 12), np.nan)}, "weights that are not finite"),
        ({"classes": np.array(["b", "a"])}, "do not fit each other"),
        ({"classes": np.array("ab")}, "do not fit each other"),
        ({"without": ["coef"]}, "it holds .*, not"),
        ({"more": {"extra": np.zeros(3)}}, "it holds .*, not"),
        ({"format": "another"}, "its metadata do not say 'featstore-probes linear probe'"),
        ({"format_version": 2}, "a saved probe of format 2, this version reads 1"),
        ({"parameters": {"C": 1.0, "run": "rm"}}, "its metadata are not those of a probe"),
        ({"parameters": [1]}, "its metadata are not those of a probe"),
        ({"C": "1"}, "its metadata are not those of a probe"),
        ({"encoder_digest": None}, "its metadata are not those of a probe"),
        ({"parameters": {"class_weight": [["a"], 3]}}, "class_weight is"),
        ({"metadata": np.frombuffer(b"{", np.uint8)}, "no saved probe, or a damaged one"),
    ],
)
def test_a_file_that_is_no_saved_probe_is_refused_in_one_line(saved, changes, message):
    path = saved(**changes)
    with pytest.raises(ProbesError, match=message) as raised:
        probes.LogisticProbe.load(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_no_pickle_is_ever_run(saved, tmp_path):
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ProbesError, match="no saved probe"):
        probes.LogisticProbe.load(tmp_path / "pickle.npz")
    with pytest.raises(ProbesError, match="is of type object"):
        probes.LogisticProbe.load(saved(coef=np.array([Trap()], dtype=object)))


def member(shape, values=b""):
    """A .npy file that claims a shape."""
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + values


def test_no_memory_is_taken_for_what_a_file_only_claims(saved):
    path = saved()
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    for coef, message in (
        (member((2**40, 12)), "claims a shape"),
        (member((1, 12), bytes(12 * 8 + 1)), "claims a shape"),
        (bytes(probefile.MOST_BYTES), "unpacks to more than 256 MiB"),
    ):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in (members | {"coef.npy": coef}).items():
                file.writestr(name, content)
        with pytest.raises(ProbesError, match=message):
            probes.LogisticProbe.load(path)


@example(place=430, change=4)  # a member that ends too early
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_probe_file_with_any_byte_changed_is_refused_or_the_same(tmp_path_factory, place, change):
    X = np.arange(12.0).reshape(6, 2) % 5
    path = tmp_path_factory.mktemp("probe") / "probe.npz"
    probe = probes.LogisticProbe("l2").fit(X, [0, 0, 0, 1, 1, 1])
    probe.save(path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= change
    path.write_bytes(content)
    try:
        loaded = probes.LogisticProbe.load(path)
    except ProbesError:
        return
    assert np.array_equal(loaded.coef_, probe.coef_)
    assert loaded.get_params() == probe.get_params()


def test_a_saved_probe_is_as_open_as_any_other_file(data, tmp_path):
    probes.LogisticProbe("l2").fit(*data).save(tmp_path / "probe.npz")
    (tmp_path / "other").write_text("")
    modes = {(tmp_path / name).stat().st_mode for name in ("probe.npz", "other")}
    assert len(modes) == 1


def test_a_path_that_is_a_folder_leaves_nothing_behind(data, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        probes.LogisticProbe("l2").fit(*data).save(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("C", "saved"), [(torch.tensor(2.0), 2.0), (range(1, 3), [1, 2]), (np.float32(0.5), 0.5)]
)
def test_parameters_of_other_libraries_are_saved_as_numbers(data, C, saved, tmp_path):
    X, y = data
    probes.LogisticProbe("l2", C=C).fit(X, y, X_val=X, y_val=y).save(tmp_path / "probe.npz")
    assert saved == probes.LogisticProbe.load(tmp_path / "probe.npz").C


def test_labels_that_could_not_be_read_again_are_not_saved(data, tmp_path):
    days = np.where(data[1] == "a", "2020-01-01", "2021-01-01").astype("M8[D]")
    probe = probes.LogisticProbe("l2").fit(data[0], days)
    with pytest.raises(ProbesError, match="labels of type datetime64"):
        probe.save(tmp_path / "probe.npz")


def rewritten(path, change):
    """A probe file whose members were changed by hand."""
    with zipfile.ZipFile(path) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in change(members):
            file.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: [*members, members[0]], "it holds"),
        (lambda members: [("../" + name, content) for name, content in members], "it holds"),
        (lambda members: [*members, ("run.py", b"import os")], "it holds"),
        (lambda members: [("x" * 10_000, b""), *members[1:]], "it holds"),
        (lambda members: [(name, b"") for name, _ in members], "no saved probe, or a damaged one"),
        (lambda members: [(name, content[:-3]) for name, content in members], "claims a shape"),
    ],
)
def test_members_that_are_not_those_of_a_probe_are_refused(saved, change, message):
    with pytest.raises(ProbesError, match=message) as raised:
        probes.LogisticProbe.load(rewritten(saved(), change))
    assert len(str(raised.value)) < 700


def test_metadata_that_would_take_much_memory_are_refused_unread(saved):
    nested = np.frombuffer(b"[" + b"[]," * 2**21 + b"[]]", np.uint8)
    with pytest.raises(ProbesError, match="its metadata are more than 4 MiB"):
        probes.LogisticProbe.load(saved(metadata=nested))
    deep = np.frombuffer(b"[" * 100_000, np.uint8)
    with pytest.raises(ProbesError, match="no saved probe, or a damaged one"):
        probes.LogisticProbe.load(saved(metadata=deep))


def test_a_digest_that_would_change_a_terminal_is_refused(saved):
    with pytest.raises(ProbesError, match="its metadata are not those of a probe"):
        probes.LogisticProbe.load(saved(encoder_digest="sha256:one\x1b[2J\nsha256:two"))


def test_labels_of_codes_that_are_no_characters_are_refused(saved):
    for code in (0x7FFFFFFF, 0xD800):
        classes = np.array([0x41, code], np.uint32).view("U1")
        with pytest.raises(ProbesError, match="holds codes that are no characters"):
            probes.LogisticProbe.load(saved(classes=classes))


@pytest.mark.parametrize("kept", [0, 1, 30, 400, -1])
def test_a_file_that_ends_too_early_is_refused(saved, kept):
    path = saved()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ProbesError, match="no saved probe, or a damaged one"):
        probes.LogisticProbe.load(path)
