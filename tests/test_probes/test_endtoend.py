import logging
import os
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from probes.endtoend import TrainedNetwork, source_px, train
from probes.endtoend.augment import augment, centre_crop
from probes.endtoend.network import Classifier, Recipe
from probes.endtoend.train import Fitting, Part, ShuffledBatches, _quiet_lightning, _trainer
from probes.errors import MissingExtraError, OneClassError, ProbesError

RESNET = "timm:test_resnet.r160_in1k"
EFFICIENTNET = "timm:test_efficientnet.r160_in1k"


@dataclass(frozen=True)
class Pixels:
    ids: np.ndarray
    pixels: np.ndarray

    def read(self, ids):
        return self.pixels[np.searchsorted(self.ids, ids)]


@dataclass(frozen=True)
class Labels:
    ids: np.ndarray
    labels: np.ndarray

    def labels_of(self, ids):
        return self.labels[np.searchsorted(self.ids, ids)]


@dataclass(frozen=True)
class Parts:
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


SHAPES = {
    "blob": lambda radius: radius < 9,
    "ring": lambda radius: (radius > 9) & (radius < 12.7),
    "bare": lambda radius: radius < 0,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small gain nothing from threads, and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cells(n, names=("blob", "ring"), *, px=48, seed=0):
    """Draw noisy patches with a dark shape near the centre; blob and ring are equally large."""
    rng = np.random.default_rng(seed)
    labels = np.array(names)[np.arange(n) % len(names)]
    rows, columns = np.mgrid[:px, :px] - px / 2
    pixels = rng.normal(190, 20, (n, px, px, 3))
    for patch, label in zip(pixels, labels, strict=True):
        down, right = rng.uniform(-3, 3, 2)
        patch[SHAPES[label](np.hypot(rows - down, columns - right))] -= 70
    ids = np.arange(n) * 10 + 1000
    return Pixels(ids, pixels.clip(0, 255).astype(np.uint8)), Labels(ids, labels)


def parts(ids, *, train, val=0):
    return Parts(ids[:train], ids[train : train + val], ids[train + val :])


def quick(patches, labels, split, **options):
    """Train a tiny network on a CPU."""
    options = {"network": RESNET, "epochs": 2, "max_learning_rate": 3e-3, "device": "cpu"} | options
    return train(patches, labels, split, **options)


@pytest.fixture(scope="module")
def small():
    patches, labels = cells(24)
    return patches, labels, parts(patches.ids, train=16, val=4)


@pytest.fixture(scope="module")
def trained(small):
    return quick(*small)


def weights(trained):
    return trained.classifier.state_dict()


def assert_same_weights(left, right):
    assert weights(left).keys() == weights(right).keys()
    for key, tensor in weights(left).items():
        assert torch.equal(tensor, weights(right)[key]), key


# What a training finds


def test_overfits_32_patches():
    patches, labels = cells(32)
    options = {"epochs": 40, "batch_size": 8, "augmented": False}
    found = quick(patches, labels, parts(patches.ids, train=32), **options)
    assert found.history[-1]["train_loss"] < 0.01
    predicted = found.classes_[found.predict_proba(patches.pixels).argmax(1)]
    assert (predicted == labels.labels).all()


def test_planted_signal_is_found_in_patches_never_seen():
    patches, labels = cells(200, px=68)
    split = parts(patches.ids, train=128, val=32)
    found = quick(patches, labels, split, epochs=12, patch_px=48)
    proba = found.predict_proba(patches.read(split.test))
    assert roc_auc_score(labels.labels_of(split.test) == "ring", proba[:, 1]) > 0.9


def test_three_classes_are_told_apart():
    patches, labels = cells(150, ("ring", "bare", "blob"))
    split = parts(patches.ids, train=120)
    found = quick(patches, labels, split, epochs=12, network=EFFICIENTNET)
    proba = found.predict_proba(patches.read(split.test))
    assert found.classes_.tolist() == ["bare", "blob", "ring"]
    assert proba.shape == (30, 3)
    assert (found.classes_[proba.argmax(1)] == labels.labels_of(split.test)).mean() > 0.8


def test_13_annotations_train_with_a_batch_of_16_and_the_log_says_so(caplog):
    patches, labels = cells(20)
    with caplog.at_level(logging.WARNING, logger="probes.endtoend"):
        found = quick(patches, labels, parts(patches.ids, train=13, val=4), batch_size=16)
    assert found.recipe.batch_size == 13
    assert "batch_size=16 reduced to the 13 training annotations" in caplog.text


def test_a_single_epoch_of_a_single_batch_trains():
    patches, labels = cells(2)
    assert quick(patches, labels, parts(patches.ids, train=2), epochs=1).best_epoch_ == 1


def test_the_test_part_is_never_read(small):
    patches, labels, split = small
    without_test = Pixels(patches.ids[:20], patches.pixels[:20])
    assert_same_weights(quick(patches, labels, split), quick(without_test, labels, split))


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
    found = quick(patches, labels, split, epochs=6, augmented=False)
    losses = [row["val_loss"] for row in found.history]
    assert found.best_epoch_ == np.argmin(losses) + 1 < len(losses)
    assert losses[-1] > 1.5 * min(losses)
    assert mean_loss(found, patches, labels, split.val) == pytest.approx(min(losses), rel=1e-5)


def test_without_a_validation_part_the_last_epoch_is_kept_and_the_history_says_so(small):
    patches, labels, split = small
    history = quick(patches, labels, replace(split, val=split.val[:0]), epochs=3).history
    assert [row["val_loss"] for row in history] == [None] * 3
    assert [row["best"] for row in history] == [False, False, True]


def test_the_history_has_one_row_per_epoch_and_one_best(trained):
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert sum(row["best"] for row in trained.history) == 1
    assert all(np.isfinite([row["train_loss"], row["val_loss"]]).all() for row in trained.history)


# What a seed decides


def test_the_same_seed_gives_the_same_weights(small, trained):
    assert_same_weights(quick(*small), trained)


def test_0_and_2_workers_give_the_same_weights_where_this_process_has_more_threads(small):
    torch.set_num_threads(2)
    try:
        assert_same_weights(quick(*small, epochs=1), quick(*small, epochs=1, workers=2))
    finally:
        torch.set_num_threads(1)


def test_another_seed_gives_other_weights(small, trained):
    other = quick(*small, seed=1)
    assert not all(
        torch.equal(weights(other)[key], weights(trained)[key]) for key in weights(other)
    )


def numpy_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002, the state that is not to change


def test_the_callers_random_states_threads_and_folder_are_left_as_found(
    small, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), random.getstate(), numpy_state()
    threads, level = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level
    quick(*small)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy_state()) == before[1:]
    assert torch.get_num_threads() == threads
    assert logging.getLogger("lightning.pytorch").level == level
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_progress_goes_to_stderr(small, capfd):
    quick(*small, progress=True)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "2/2" in printed.err


@given(n=st.integers(2, 60), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_an_epochs_batches_hold_each_patch_once_and_differ_in_size_by_one_at_most(
    n, batch_size, seed
):
    batches = ShuffledBatches(n, batch_size=batch_size, seed=seed)
    positions = [batch for _, batch in batches]
    sizes = [len(batch) for batch in positions]
    assert len(sizes) == len(batches)
    assert sorted(np.concatenate(positions)) == list(range(n))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


class Witness(Fitting):
    """Note the epoch and order of each batch, and the gradients as they are when the step comes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen, self.norms, self.raw_norms = [], [], []

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, batch[2].tolist()))
        return super().training_step(batch, index)

    def on_before_optimizer_step(self, optimizer):
        self.raw_norms.append(self._gradient_norm())

    def configure_gradient_clipping(self, *args, **options):
        super().configure_gradient_clipping(*args, **options)
        self.norms.append(self._gradient_norm())

    def _gradient_norm(self):
        return float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]))


@pytest.fixture(scope="module")
def witness(tmp_path_factory):
    patches, labels = cells(12)
    recipe = Recipe(
        network=RESNET,
        patch_px=48,
        epochs=3,
        batch_size=4,
        max_learning_rate=0.3,
        weight_decay=0.0,
        seed=5,
        augmented=True,
        pretrained=None,
        n_train=12,
        n_val=0,
    )
    codes = torch.from_numpy((labels.labels == "ring").astype(np.int64))
    part = Part(torch.from_numpy(patches.pixels), codes, recipe, augmented=True)
    batches = ShuffledBatches(12, batch_size=4, seed=5)
    with _quiet_lightning(), torch.random.fork_rng():
        torch.manual_seed(5)
        fitting = Witness(recipe, 2, {"training": patches.ids})
        loader = torch.utils.data.DataLoader(part, sampler=batches, batch_size=None)
        kept = ModelCheckpoint(tmp_path_factory.mktemp("kept"))
        _trainer(recipe, [kept], torch.device("cpu")).fit(fitting, loader)
    return fitting


def test_each_epoch_has_its_own_order(witness):
    for epoch in range(3):
        expected = ShuffledBatches(12, batch_size=4, seed=5)
        expected.set_epoch(epoch)
        seen = [positions for at, positions in witness.seen if at == epoch]
        assert seen == [positions.tolist() for _, positions in expected]
    assert witness.seen[0][1] != witness.seen[3][1]


def test_gradients_are_clipped_after_backward_and_before_the_step(witness):
    assert max(witness.raw_norms) > 1.5
    assert max(witness.norms) <= 1 + 1e-5
    clipped = np.minimum(witness.raw_norms, 1)
    np.testing.assert_allclose(witness.norms, clipped, rtol=1e-4)


# Augmentation


@settings(deadline=None)
@given(
    patch_px=st.integers(5, 70),
    extra=st.integers(0, 5),
    seed=st.integers(0, 2**31),
    sample=st.integers(0, 10**6),
)
def test_a_white_patch_has_no_black_corners_after_augmentation(patch_px, extra, seed, sample):
    white = torch.full((3, *[source_px(patch_px) + extra] * 2), 255, dtype=torch.uint8)
    changed = augment(white, patch_px, seed=seed, epoch=0, sample=sample)
    assert changed.shape == (3, patch_px, patch_px)
    # Jitter scales a constant patch as a whole; a corner from outside would differ.
    assert int(changed.max()) - int(changed.min()) <= 1
    assert int(changed.min()) >= 0.85 * 255


def test_a_patch_without_margin_turns_by_quarters_only():
    small = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)
    white = torch.full((3, 8, 8), 255, dtype=torch.uint8)
    for sample in range(40):
        assert augment(white, 8, seed=0, epoch=0, sample=sample).min() > 0.85 * 255
        assert augment(small, 8, seed=0, epoch=0, sample=sample).shape == (3, 8, 8)


def test_augmentation_depends_on_seed_epoch_and_sample_and_each_matters():
    patch = torch.from_numpy(cells(1, px=68)[0].pixels[0]).permute(2, 0, 1)
    drawn = {
        (seed, epoch, sample): augment(patch, 48, seed=seed, epoch=epoch, sample=sample)
        for seed in range(3)
        for epoch in range(3)
        for sample in range(3)
    }
    before = torch.get_rng_state()
    again = augment(patch, 48, seed=2, epoch=1, sample=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again, drawn[2, 1, 0])
    assert len({changed.numpy().tobytes() for changed in drawn.values()}) > 20


def test_about_half_the_samples_are_turned_and_most_of_these_by_odd_angles():
    stripe = torch.zeros((3, 68, 68), dtype=torch.uint8)
    stripe[:, 30:38] = 255
    changed = [augment(stripe, 48, seed=0, epoch=0, sample=sample)[0] for sample in range(100)]
    profiles = [(patch.float().mean(0), patch.float().mean(1)) for patch in changed]
    upright = [
        max(np.ptp(rows.numpy()), np.ptp(columns.numpy())) > 180 for rows, columns in profiles
    ]
    assert 50 <= sum(upright) <= 75


@given(px=st.integers(1, 40), patch_px=st.integers(1, 40), kept_px=st.integers(1, 40))
def test_crops_keep_the_annotations_pixel_and_may_be_taken_in_turn(px, patch_px, kept_px):
    px, kept_px, patch_px = sorted((px, kept_px, patch_px), reverse=True)
    marked = np.zeros((1, px, px, 3))
    marked[:, px // 2, px // 2] = 1
    cropped = centre_crop(marked, patch_px)
    assert cropped[0, patch_px // 2, patch_px // 2, 0] == 1
    np.testing.assert_array_equal(centre_crop(centre_crop(marked, kept_px), patch_px), cropped)


# Using what was trained


def test_probabilities_are_float64_and_sum_to_1_whatever_the_batch(small, trained):
    pixels = small[0].pixels
    proba = trained.predict_proba(pixels)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(trained.predict_proba(pixels, batch_size=5), proba, atol=1e-6)
    assert trained.predict_proba(pixels[:0]).shape == (0, 2)


def test_patches_that_cannot_be_written_to_are_read_all_the_same(small, trained):
    patches, labels, split = small
    locked = patches.pixels.copy()
    locked.flags.writeable = False
    assert_same_weights(quick(Pixels(patches.ids, locked), labels, split), trained)
    assert trained.predict_proba(locked).shape == (24, 2)


def test_prediction_sees_the_centre_only(small):
    patches, labels, split = small
    found = quick(patches, labels, split, patch_px=32)
    expected = found.predict_proba(centre_crop(patches.pixels, 32))
    np.testing.assert_array_equal(found.predict_proba(patches.pixels), expected)


def test_pixels_are_normalised_by_the_networks_own_mean_and_deviation():
    classifier = Classifier(RESNET, n_classes=2, patch_px=4)
    classifier.network = torch.nn.Identity()
    normalised = classifier(torch.full((1, 4, 4, 3), 255, dtype=torch.uint8))
    cfg = Classifier(RESNET, n_classes=2, patch_px=4).network.pretrained_cfg
    expected = [(1 - mean) / std for mean, std in zip(cfg["mean"], cfg["std"], strict=True)]
    np.testing.assert_allclose(normalised[0, :, 0, 0], expected, rtol=1e-6)


def test_saved_and_loaded_networks_predict_the_same(small, trained, tmp_path):
    path = tmp_path / "network.safetensors"
    trained.save(path)
    loaded = TrainedNetwork.load(path, device="cpu")
    pixels = small[0].pixels
    np.testing.assert_array_equal(loaded.predict_proba(pixels), trained.predict_proba(pixels))
    assert loaded.classes_.tolist() == trained.classes_.tolist()
    assert (loaded.recipe, loaded.history) == (trained.recipe, trained.history)
    assert (loaded.network, loaded.best_epoch_) == (RESNET, trained.best_epoch_)


def test_a_file_of_others_is_not_loaded(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ProbesError, match="not a network saved here"):
        TrainedNetwork.load(tmp_path / "other.safetensors")
    for name in ("text", "missing"):
        with pytest.raises(ProbesError, match="cannot read"):
            TrainedNetwork.load(tmp_path / name)


# Starting from a checkpoint


@pytest.mark.parametrize("n_classes", [2, 1000])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_a_checkpoint_gives_every_weight_but_the_last_layer(tmp_path, kind, n_classes):
    source = Classifier(EFFICIENTNET, n_classes=n_classes, patch_px=32).network.state_dict()
    path = tmp_path / f"weights.{kind}"
    (save_file if kind == "safetensors" else torch.save)(source, path)
    started = Classifier(EFFICIENTNET, n_classes=2, patch_px=32)
    fresh = {key: tensor.clone() for key, tensor in started.network.state_dict().items()}
    started.start_from(path)
    for key, tensor in started.network.state_dict().items():
        expected = fresh if key.startswith("classifier.") else source
        assert torch.equal(tensor, expected[key]), key


def test_a_training_starts_from_the_checkpoint(small, tmp_path):
    patches, labels, split = small
    source = Classifier(RESNET, n_classes=7, patch_px=48).network.state_dict()
    save_file(source, tmp_path / "start.safetensors")
    options = {"pretrained": tmp_path / "start.safetensors", "max_learning_rate": 1e-9}
    found = quick(patches, labels, split, epochs=1, **options)
    for key, tensor in found.classifier.network.named_parameters():
        if not key.startswith("fc."):
            torch.testing.assert_close(tensor, source[key], rtol=0, atol=1e-6)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(Classifier(EFFICIENTNET, n_classes=2, patch_px=32).network.state_dict(), path)
    with pytest.raises(ProbesError, match=r"of another network|does not fit"):
        Classifier(RESNET, n_classes=2, patch_px=32).start_from(path)
    with pytest.raises(ProbesError, match="no checkpoint file"):
        Classifier(RESNET, n_classes=2, patch_px=32).start_from(tmp_path / "none")


class Payload:
    def __reduce__(self):
        return os.getpid, ()


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "code.pth")
    with pytest.raises(ProbesError, match="cannot be read as weights"):
        Classifier(RESNET, n_classes=2, patch_px=32).start_from(tmp_path / "code.pth")


# Errors


def test_one_class_is_refused(small):
    patches, labels, split = small
    with pytest.raises(
        OneClassError, match=r"8 training annotations hold 1 class\(es\) \['blob'\]"
    ):
        quick(patches, labels, replace(split, train=split.train[::2]))


def test_a_loss_that_is_no_number_names_the_annotations(small, tmp_path):
    patches, labels, split = small
    source = Classifier(RESNET, n_classes=2, patch_px=48).network.state_dict()
    broken = {key: tensor * float("nan") for key, tensor in source.items()}
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(
        ProbesError, match=r"training loss is nan in epoch 1 on annotations"
    ) as raised:
        quick(patches, labels, split, pretrained=tmp_path / "broken.safetensors", batch_size=4)
    named = [annotation for annotation in split.train if str(annotation) in str(raised.value)]
    assert len(named) == 4
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "timm:resnet5O"}, "no network 'timm:resnet5O'; .* timm:resnet50"),
        ({"network": "hf-hub:some/where"}, "no network"),
        ({"network": "resnet50"}, "timm:resnet50"),
        ({"epochs": 0}, "epochs=0 is too small; give at least 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"patch_px": 64}, "patch_px=64 is asked and the patches are 48 px wide"),
        ({"device": "tpu9"}, "device='tpu9' cannot be used"),
    ],
)
def test_what_cannot_be_used_is_named(small, options, message):
    with pytest.raises(ProbesError, match=message) as raised:
        quick(*small, **options)
    assert "\n" not in str(raised.value)


def test_a_validation_class_that_training_lacks_is_named(small):
    patches, labels, split = small
    other = np.where(labels.ids == split.val[0], "apoptosis", labels.labels)
    with pytest.raises(ProbesError, match=r"\['apoptosis'\], which no training annotation has"):
        quick(patches, Labels(labels.ids, other), split)


def test_pixels_of_another_kind_are_refused(small, trained):
    patches = small[0].pixels
    for wrong in (patches.astype(float), patches[0], patches[:, :20], patches[..., :1]):
        with pytest.raises(ProbesError, match="give square RGB patches"):
            trained.predict_proba(wrong)


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
