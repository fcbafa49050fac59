import multiprocessing
import os
import resource
import shutil
import signal
import time

import pytest
import torch

from probes.endtoend import TrainedNetwork
from probes.errors import CheckpointError, LossError
from tests.test_probes.drawn_cells import (
    EFFICIENTNET,
    Labels,
    Pixels,
    cells,
    parts,
    quick,
    same_weights,
)

OPTIONS = {"network": EFFICIENTNET, "epochs": 6, "batch_size": 4, "checkpoint_every_s": 0}


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(28)
    return patches, labels, parts(patches.ids, train=18, val=6)


@pytest.fixture(scope="module")
def uninterrupted(small):
    return quick(*small, **OPTIONS | {"checkpoint_every_s": 60})


class Slow(Pixels):
    """Patches that leave the time to kill who reads them."""

    def read(self, ids):
        time.sleep(0.03)
        return super().read(ids)


def begun(folder, small):
    """Train in a process of its own, from patches that are read as they are needed."""
    patches, labels, split = small
    process = multiprocessing.get_context("fork").Process(
        target=quick,
        args=(Slow(patches.ids, patches.pixels), labels, split),
        kwargs=OPTIONS | {"checkpoints": folder, "memory_gib": 0},
    )
    process.start()
    return process


def step_of(path):
    """Step of a checkpoint that another process may just be moving."""
    try:
        return torch.load(path, weights_only=True)["step"]
    except FileNotFoundError:
        return 0


@pytest.fixture(scope="module")
def killed(small, tmp_path_factory):
    """A training that was killed in its third epoch: two checkpoints, of one step and the next."""
    folder = None
    while folder is None or not (folder / "last.ckpt").exists():  # as between its two moves
        folder = tmp_path_factory.mktemp("killed")
        process = begun(folder, small)
        while step_of(folder / "last.ckpt") < 12 and process.is_alive():
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert 0 < step_of(folder / "before.ckpt") < step_of(folder / "last.ckpt") < 30
    return folder


@pytest.fixture
def kept(killed, tmp_path):
    """A copy of what it left."""
    return shutil.copytree(killed, tmp_path / "kept")


def test_killed_at_many_instants_and_begun_again_the_weights_are_those_of_one_run(
    small, uninterrupted, tmp_path
):
    last, reached = tmp_path / "last.ckpt", [0]
    for more_s in (0, 0.013, 0.055, 0.004, 0.031):
        process = begun(tmp_path, small)
        while step_of(last) <= reached[-1] and process.is_alive():
            time.sleep(0.002)
        time.sleep(more_s)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached.append(max(step_of(last), step_of(tmp_path / "before.ckpt")))
    resumed = quick(*small, **OPTIONS, checkpoints=tmp_path)
    assert same_weights(resumed, uninterrupted)
    assert resumed.history == uninterrupted.history
    assert any(step % 5 for step in reached), reached  # in the midst of an epoch


def test_the_last_and_the_best_are_both_kept_and_an_ended_training_is_returned_at_once(
    small, uninterrupted, tmp_path
):
    patches, labels, split = small
    assert same_weights(quick(*small, **OPTIONS, checkpoints=tmp_path), uninterrupted)
    names = {"last.ckpt", "before.ckpt", "best.safetensors", "lock"}
    assert {path.name for path in tmp_path.iterdir()} == names
    best = TrainedNetwork.load(tmp_path / "best.safetensors", device="cpu")
    assert same_weights(best, uninterrupted)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["step"] == 30
    read = []

    class Watched(Pixels):
        def read(self, ids):
            read.append(len(ids))
            return super().read(ids)

    watched = Watched(patches.ids, patches.pixels)
    again = quick(watched, labels, split, **OPTIONS, checkpoints=tmp_path)
    assert same_weights(again, uninterrupted)
    assert sum(read) <= 4  # patches that tell whether these are the same pixels


@pytest.mark.parametrize("harm", ["cut short", "one byte changed", "removed"])
def test_a_broken_last_checkpoint_is_passed_over_for_the_one_before(
    small, uninterrupted, kept, caplog, harm
):
    last = kept / "last.ckpt"
    whole = bytearray(last.read_bytes())
    if harm == "cut short":
        last.write_bytes(whole[: len(whole) // 2])
    if harm == "one byte changed":
        whole[len(whole) // 2] ^= 1
        last.write_bytes(whole)
    if harm == "removed":  # as a kill between two moves leaves it
        last.unlink()
    assert same_weights(quick(*small, **OPTIONS, checkpoints=kept), uninterrupted)
    assert ("last.ckpt cannot be read" in caplog.text) == (harm != "removed")


def test_what_a_kill_left_half_written_is_no_checkpoint(small, uninterrupted, kept):
    (kept / "last.ckpt.partial").write_bytes(b"PK")
    assert same_weights(quick(*small, **OPTIONS, checkpoints=kept), uninterrupted)


def test_checkpoints_that_cannot_be_read_are_not_overwritten(small, kept):
    for name in ("last.ckpt", "before.ckpt"):
        (kept / name).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="can be read; delete them to start afresh"):
        quick(*small, **OPTIONS, checkpoints=kept)
    assert (kept / "last.ckpt").read_bytes() == b"nothing"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(small, kept, zipped):
    state = torch.load(kept / "last.ckpt", weights_only=True)
    for name in ("last.ckpt", "before.ckpt"):
        state["history"] = Payload(str(kept / "ran"))
        torch.save(state, kept / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="can be read; delete them"):
        quick(*small, **OPTIONS, checkpoints=kept)
    assert not (kept / "ran").exists()


@pytest.mark.parametrize(
    "harm",
    [
        {"step": 10**9},
        {"network": {}},
        {"optimiser": {"state": 1}},
        {"history": None, "ended": True},
        {"best": {"fc.weight": torch.zeros(1)}, "ended": True},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_content_is_refused_in_one_line(small, kept, harm):
    state = torch.load(kept / "last.ckpt", weights_only=True)
    torch.save(state | harm, kept / "last.ckpt")
    with pytest.raises(CheckpointError, match="hold no state of this training") as raised:
        quick(*small, **OPTIONS, checkpoints=kept)
    assert "\n" not in str(raised.value)


def test_a_second_program_is_kept_out_and_the_first_goes_on(small, uninterrupted, tmp_path):
    process = begun(tmp_path, small)
    while not step_of(tmp_path / "last.ckpt"):
        time.sleep(0.005)
    with pytest.raises(CheckpointError, match="another program is training in"):
        quick(*small, **OPTIONS, checkpoints=tmp_path)
    process.join()
    assert process.exitcode == 0
    assert same_weights(quick(*small, **OPTIONS, checkpoints=tmp_path), uninterrupted)


def test_a_full_disk_is_one_line_and_the_checkpoint_before_it_is_gone_on_from(
    small, uninterrupted, kept
):
    reached = step_of(kept / "last.ckpt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .* make room"):
            quick(*small, **OPTIONS, checkpoints=kept)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert step_of(kept / "last.ckpt") == reached
    assert not (kept / "last.ckpt.partial").exists()
    assert same_weights(quick(*small, **OPTIONS, checkpoints=kept), uninterrupted)


def others(patches, labels, split):
    """The same training but for one thing, by what that is."""
    darker = Pixels(patches.ids, patches.pixels // 2)
    swapped = Labels(labels.ids, labels.labels[::-1])
    moved = parts(patches.ids[::-1], train=18, val=6)
    return {
        "recipe": ((patches, labels, split), {"max_learning_rate": 1e-4}),
        "split": ((patches, labels, moved), {}),
        "labels": ((patches, swapped, split), {}),
        "patches": ((darker, labels, split), {}),
    }


def test_checkpoints_of_another_training_are_refused_and_left_alone(small, kept):
    before = (kept / "last.ckpt").read_bytes()
    for name, (of, changes) in others(*small).items():
        with pytest.raises(CheckpointError, match=f"of another training: its {name} is") as raised:
            quick(*of, **OPTIONS | changes, checkpoints=kept)
        assert "\n" not in str(raised.value)
    assert (kept / "last.ckpt").read_bytes() == before


def test_a_file_in_the_place_of_the_folder_is_said_to_be_none(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is no folder"):
        quick(*small, checkpoints=tmp_path / "file")


def test_a_loss_that_is_no_number_keeps_the_checkpoint_before_it(small, tmp_path):
    with pytest.raises(LossError, match=r"last\.ckpt holds a step before it"):
        quick(*small, **OPTIONS | {"max_learning_rate": 1e30}, checkpoints=tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["step"] > 0
    assert all(tensor.isfinite().all() for tensor in state["network"].values())
