import pytest

from probes.errors import LossError
from tests.test_probes.drawn_cells import VIT, cells, parts, quick


@pytest.fixture(scope="module")
def small():
    """19 patches in batches of 4 and 5, which two processes share unevenly."""
    patches, labels = cells(27, px=64)
    return patches, labels, parts(patches.ids, train=19, val=5)


# A network without batch normalisation: on a CPU that sees each process's share alone.
OPTIONS = {"network": VIT, "patch_px": 64, "batch_size": 5, "epochs": 3, "checkpoint_every_s": 0}


def test_two_processes_train_as_one_does(small, tmp_path):
    one = quick(*small, **OPTIONS)
    two = quick(*small, **OPTIONS, devices=2, checkpoints=tmp_path)
    assert len(one.history) == len(two.history) == 3
    for row, other in zip(one.history, two.history, strict=True):
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(other[name], abs=1e-4)
    assert quick(*small, **OPTIONS, checkpoints=tmp_path).history == two.history


def test_what_goes_wrong_in_another_process_is_one_line_of_its_own_kind(small):
    with pytest.raises(LossError, match="is no finite number in epoch 1") as raised:
        quick(*small, **OPTIONS | {"max_learning_rate": 1e30}, devices=2)
    assert "\n" not in str(raised.value)
