import logging
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.optim.optimizer import register_optimizer_step_pre_hook

from probes.endtoend import train
from probes.endtoend.parts import Parts as CheckedParts
from probes.errors import MissingExtraError
from probes.metrics.delong import delong_interval
from tests.test_probes.drawn_cells import (
    EFFICIENTNET,
    Labels,
    Pixels,
    cells,
    parts,
    quick,
    same_weights,
)


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(24)
    return patches, labels, parts(patches.ids, train=16, val=4)


@pytest.fixture(scope="module")
def trained(small):
    return quick(*small)


# What a training finds


def test_overfits_64_patches():
    patches, labels = cells(64)
    options = {"epochs": 14, "augmentation": "none", "max_learning_rate": 5e-3}
    found = quick(patches, labels, parts(patches.ids, train=64), **options)
    assert found.history[-1]["train_loss"] < 0.01
    predicted = found.classes_[found.predict_proba(patches.pixels).argmax(1)]
    assert (predicted == labels.labels).all()


def test_planted_signal_is_found_in_patches_never_seen():
    patches, labels = cells(160, px=68)
    split = parts(patches.ids, train=96, val=24)
    found = quick(patches, labels, split, epochs=6, max_learning_rate=5e-3)
    proba = found.predict_proba(patches.read(split.test))
    assert roc_auc_score(labels.labels_of(split.test) == "ring", proba[:, 1]) > 0.9


def test_labels_that_say_nothing_give_an_auroc_whose_interval_holds_one_half():
    patches, labels = cells(260)
    shuffled = Labels(labels.ids, np.random.default_rng(1).permutation(labels.labels))
    split = parts(patches.ids, train=96, val=24)
    found = quick(patches, shuffled, split, epochs=6)
    truth = shuffled.labels_of(split.test) == "ring"
    interval = delong_interval(truth, found.predict_proba(patches.read(split.test))[:, 1])
    assert interval.low < 0.5 < interval.high
    assert interval.high - interval.low < 0.25


def test_three_classes_are_told_apart():
    patches, labels = cells(150, ("ring", "bare", "blob"))
    split = parts(patches.ids, train=120)
    options = {"network": EFFICIENTNET, "epochs": 6, "max_learning_rate": 5e-3}
    found = quick(patches, labels, split, **options)
    proba = found.predict_proba(patches.read(split.test))
    assert found.classes_.tolist() == ["bare", "blob", "ring"]
    assert proba.shape == (30, 3)
    assert (found.classes_[proba.argmax(1)] == labels.labels_of(split.test)).mean() > 0.8


def test_13_annotations_train_with_a_batch_of_16_and_the_log_says_so(caplog):
    patches, labels = cells(20)
    with caplog.at_level(logging.WARNING, logger="probes.endtoend"):
        found = quick(patches, labels, parts(patches.ids, train=13, val=4), batch_size=16)
    assert len(found.history) == 2
    assert "batch_size=16 reduced to the 13 training annotations" in caplog.text


def test_a_single_epoch_of_a_single_batch_trains():
    patches, labels = cells(2)
    assert quick(patches, labels, parts(patches.ids, train=2), epochs=1).best_epoch_ == 1


def test_the_test_part_is_never_read(small, trained):
    patches, labels, split = small
    without_test = Pixels(patches.ids[:20], patches.pixels[:20])
    assert same_weights(trained, quick(without_test, labels, split))


def test_a_label_is_the_annotations_own_whatever_else_lies_in_its_patch():
    """The authors' later code calls a patch mitotic if any mitotic figure lies in its window."""
    patches, labels = cells(12)
    twin = np.repeat(patches.pixels[::2], 2, axis=0)  # each look-alike shares its patch with one
    found = CheckedParts.of(Pixels(patches.ids, twin), labels, parts(patches.ids, train=8, val=4))
    assert found.classes[found.train_codes].tolist() == labels.labels[:8].tolist()
    assert found.classes[found.val_codes].tolist() == labels.labels[8:].tolist()


# Which weights are kept


@pytest.fixture(scope="module")
def misled():
    """Validation labels are the wrong way round, so that learning makes the loss there rise."""
    patches, labels = cells(64)
    split = parts(patches.ids, train=48, val=16)
    swapped = np.where(np.isin(patches.ids, split.val), labels.labels[::-1], labels.labels)
    return patches, Labels(patches.ids, swapped), split


def mean_loss(trained, patches, labels, ids):
    proba = trained.predict_proba(patches.read(ids))
    right = np.searchsorted(trained.classes_, labels.labels_of(ids))
    return -np.log(proba[np.arange(len(ids)), right]).mean()


def test_the_weights_kept_are_those_of_the_least_validation_loss_and_not_the_last(misled):
    patches, labels, split = misled
    found = quick(patches, labels, split, epochs=6, augmentation="none")
    losses = [row["val_loss"] for row in found.history]
    assert found.best_epoch_ == np.argmin(losses) + 1 < len(losses)
    assert losses[-1] > 1.5 * min(losses)
    assert mean_loss(found, patches, labels, split.val) == pytest.approx(min(losses), rel=1e-5)


def test_training_stops_when_validation_has_not_got_better_for_as_long_as_was_said(misled):
    patches, labels, split = misled
    options = {"epochs": 8, "augmentation": "none"}
    to_the_end = quick(patches, labels, split, **options)
    found = quick(patches, labels, split, patience=2, **options)
    assert len(found.history) == found.best_epoch_ + 2 < 8
    assert found.history == to_the_end.history[: len(found.history)]
    assert same_weights(found, to_the_end)


def test_without_a_validation_part_the_last_epoch_is_kept_and_the_history_says_so(small):
    patches, labels, split = small
    history = quick(patches, labels, replace(split, val=split.val[:0]), epochs=3).history
    assert [row["val_loss"] for row in history] == [None] * 3
    assert [row["best"] for row in history] == [False, False, True]


def test_the_history_has_one_row_per_epoch_and_one_best(trained):
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert sum(row["best"] for row in trained.history) == 1
    assert all(np.isfinite([row["train_loss"], row["val_loss"]]).all() for row in trained.history)


# What a step does


def test_gradients_are_clipped_after_backward_and_before_the_step(small):
    """In the authors' later code clipping runs before backward, and so on nothing."""
    norms = []

    def note(optimiser, *_):
        of_all = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(float(torch.nn.utils.get_total_norm(of_all)))

    hook = register_optimizer_step_pre_hook(note)
    try:
        quick(*small, epochs=6, batch_size=4, max_learning_rate=0.3)
    finally:
        hook.remove()
    assert len(norms) == 24
    assert max(norms) <= 1 + 1e-5
    assert sum(norm > 1 - 1e-5 for norm in norms) > 5  # these were longer


def test_the_rate_rises_to_its_maximum_and_falls_again(small):
    found = quick(*small, epochs=20, network=EFFICIENTNET, max_learning_rate=1e-3)
    rates = [row["learning_rate"] for row in found.history]
    peak = int(np.argmax(rates))
    assert 0 < peak < 10
    assert max(rates) <= 1e-3
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert rates[-1] < 1e-8


# What a seed decides


def test_the_same_seed_gives_the_same_weights(small, trained):
    assert same_weights(quick(*small), trained)


def test_another_seed_gives_other_weights(small, trained):
    other = quick(*small, seed=1)
    assert not same_weights(other, trained)


@pytest.mark.parametrize(
    "feeding",
    [{"workers": 2}, {"augment_on": "device"}, {"memory_gib": 0}, {"memory_gib": 0, "workers": 1}],
    ids=str,
)
def test_how_pixels_are_fed_changes_nothing(small, trained, feeding):
    assert same_weights(quick(*small, **feeding), trained)


def numpy_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002, the state that is not to change


def test_the_callers_random_states_threads_and_folder_are_left_as_found(
    small, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    threads, level = torch.get_num_threads(), logging.getLogger("lightning.fabric").level
    quick(*small)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy_state()) == before[1:]
    assert torch.get_num_threads() == threads
    assert logging.getLogger("lightning.fabric").level == level
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


# What is told


def test_progress_goes_to_stderr(small, capfd):
    quick(*small, progress=True)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "2/2" in printed.err


def test_logs_hold_every_epoch_and_each_start_has_its_own(small, tmp_path):
    found = quick(*small, epochs=22, logs=tmp_path)
    quick(*small, logs=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["version_0", "version_1"]
    lines = (tmp_path / "version_0" / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    of_epochs = [row for row in rows if row["val_loss"]]
    assert [float(row["val_loss"]) for row in of_epochs] == [
        row["val_loss"] for row in found.history
    ]
    assert [float(row["images_per_s"]) > 0 for row in rows if row["images_per_s"]] == [True]
    pytest.importorskip("tensorboard")
    assert list((tmp_path / "version_0").glob("events.out.tfevents.*"))


def test_without_torch_the_import_says_what_to_install():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from probes.errors import MissingExtraError\n"
        "try:\n    import probes.endtoend\n"
        "except MissingExtraError as error:\n    sys.stdout.write(str(error))\n"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True
    )
    assert answer.stdout.startswith("end-to-end training needs torch")
    assert "pip install 'featstore-probes[train]'" in answer.stdout
    assert issubclass(MissingExtraError, ImportError)
    assert callable(train)
