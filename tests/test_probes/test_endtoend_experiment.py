"""The experiment: what is kept, what is skipped, and what happens when a training ends badly."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import probes
from probes.errors import ProbesError, SplitError, WeightsError
from probes.evaluate import Score
from probes.results import KEY, Results

endtoend = pytest.importorskip("probes.endtoend")

from safetensors.torch import save_file  # noqa: E402

from probes.endtoend import experiment  # noqa: E402
from probes.endtoend.network import build  # noqa: E402

PX = 32
TINY = {"network": "timm:test_resnet", "pretrained": None, "patch_px": PX, "epochs": 1}


class Cells:
    """60 cells on 6 slides in 3 domains; mitotic figures are darker."""

    name, digest = "cells", "sha256:" + "c" * 64

    def __init__(self, labels=None):
        self.ids = np.arange(100, 160)
        wanted = np.where(self.ids % 2, "mitotic figure", "look-alike")
        self.labels = wanted if labels is None else labels

    def labels_of(self, ids):
        return self.labels[np.asarray(ids) - 100]

    def column(self, name):
        places = self.ids // 10 % 6
        return np.array(list("AABBCC"))[places] if name == "domain" else places


class Pixels:
    """Patches of them; reading one that is poisoned does what it says."""

    mpp = 0.25

    def __init__(self, poison=None):
        self.ids = np.arange(100, 160)
        self.poison = poison or {}
        self.n_read = 0

    def read(self, ids):
        self.n_read += len(ids)
        for annotation in np.asarray(ids).tolist():
            if annotation in self.poison:
                self.poison[annotation]()
        grey = np.where(np.asarray(ids) % 2, 60, 190)[:, None, None, None]
        noise = np.random.default_rng(0).integers(-30, 30, (len(ids), PX, PX, 3))
        return (grey + noise).astype(np.uint8)


def die():
    os._exit(9)


def interrupt():
    raise KeyboardInterrupt


def lose():
    raise FileNotFoundError(2, "no such file", "slide7.tiff")


@pytest.fixture
def cells():
    return Cells()


@pytest.fixture
def splits(cells):
    return probes.monte_carlo(cells, repeats=2, train=[0.5, 1.0])


@pytest.fixture
def told():
    return []


@pytest.fixture
def run(told):
    """Run an experiment with a tiny network; what it says goes to ``told``."""

    def train_all(cells, splits, patches=None, **options):
        settings = {"checkpoint_every_s": 0}
        given = {"settings": settings, "say": told.append, **TINY, **options}
        return endtoend.train_all(patches or Pixels(), cells, splits, **given)

    return train_all


def keys(results):
    return [tuple(row[name] for name in KEY if name not in ("model", "encoder", "recipe"))
            for row in results.rows]  # fmt: skip


def test_rows_are_of_the_annotations_that_a_probe_is_tested_on(cells, splits, run):
    results = run(cells, splits, keep_scores=True, metrics=("auroc", "brier"))
    source = SimpleNamespace(ids=cells.ids, read=lambda ids: Pixels().read(ids)[:, 0, :, 0] / 255.0)
    probed = probes.learning_curve(source, cells, splits, metrics=("auroc", "brier"))
    assert keys(results) == keys(probed)
    assert {row["model"] for row in results.rows} == {"end-to-end test_resnet"}
    assert {row["encoder"] for row in results.rows} == {
        endtoend.preset("ganz2024", **TINY).resolved().digest
    }
    for split in splits:
        scored = results.scores[results.scores["split"] == split.digest]
        assert scored["id"].tolist() == split.test.tolist()
        assert scored["label"].tolist() == cells.labels_of(split.test).tolist()
        value = next(row["value"] for row in results.rows if row["split"] == split.digest)
        assert value == probes.metrics.auroc(
            scored["label"] == "mitotic figure", scored["p mitotic figure"].to_numpy()
        )


def test_splits_with_a_training_domain_give_the_rows_of_cross_domain(cells, run):
    splits = probes.single_domain(cells, repeats=1)
    results = run(cells, splits)
    source = SimpleNamespace(ids=cells.ids, read=lambda ids: Pixels().read(ids)[:, 0, :, 0] / 255.0)
    assert keys(results) == keys(probes.cross_domain(source, cells, splits))
    assert [row["test_domain"] for row in results.rows] == ["A", "B", "C"] * 3


def test_a_score_of_other_annotations_is_refused(splits):
    first, second = splits[0], splits[-1]
    scored = Score(0.5, first.test, None, None, None)
    network = SimpleNamespace(training=SimpleNamespace(split=first.digest))
    experiment._check_tested(scored, first, network)
    of_another = SimpleNamespace(training=SimpleNamespace(split=second.digest))
    with pytest.raises(SplitError, match="these must be the same"):
        experiment._check_tested(scored, first, of_another)
    with pytest.raises(SplitError, match="these must be the same"):
        experiment._check_tested(scored, second, network)
    with pytest.raises(SplitError, match="these must be the same"):
        experiment._check_tested(replace(scored, ids=first.test[::-1]), first, network)


def test_what_is_there_and_equal_is_not_trained_again(cells, splits, run, told, tmp_path):
    first = run(cells, replace(splits, members=splits.members[:2]), folder=tmp_path / "out")
    assert [line[:5] for line in told] == ["[1/2]", "[2/2]"]
    told.clear()
    both = run(cells, splits, folder=tmp_path / "out")
    assert told[0] == "2 of 4 trainings are there and equal; 2 more are trained"
    assert both.rows[:2] == first.rows
    told.clear()
    again = run(cells, splits, folder=tmp_path / "out")
    assert told == ["4 of 4 trainings are there and equal; nothing is trained"]
    assert again.rows == both.rows == Results.load(tmp_path / "out").rows


def test_rows_are_not_enough_where_networks_or_scores_are_asked(cells, splits, run, told, tmp_path):
    one, out = replace(splits, members=splits.members[:1]), {"folder": tmp_path / "out"}
    rows = run(cells, one, **out).rows
    with_network = out | {"networks": tmp_path / "networks"}
    run(cells, one, **with_network)
    scored = run(cells, one, **with_network, keep_scores=True)
    assert ["to train on" in line for line in told] == [True, True, False]
    assert "is there, AUROC" in told[-1]
    assert scored.rows == rows == Results.load(tmp_path / "out").rows
    assert scored.scores["id"].tolist() == splits[0].test.tolist()


def test_another_recipe_or_other_labels_are_trained_anew_and_the_old_rows_stay(
    cells, splits, run, told, tmp_path
):
    one = replace(splits, members=splits.members[:1])
    options = {"folder": tmp_path / "out.csv"}
    first = run(cells, one, **options)
    told.clear()
    second = run(cells, one, seed=1, **options)
    assert told[0] == (
        f"trainings on these splits are there with another recipe ({first.rows[0]['recipe']}); "
        "they stay"
    )
    relabelled = Cells(cells.labels[::-1].copy())
    relabelled.digest = "sha256:" + "d" * 64
    third = run(relabelled, probes.monte_carlo(relabelled, repeats=1, train=[0.5]), **options)
    assert third.rows[0]["split"] == first.rows[0]["split"]
    kept = Results.load(tmp_path / "out.csv").rows
    assert kept == first.rows + second.rows + third.rows


def test_splits_of_another_dataset_and_recipes_that_cannot_be_are_refused_first(cells, splits, run):
    other = Cells(np.roll(cells.labels, 1))
    other.digest = "sha256:" + "d" * 64
    untouched = Pixels(dict.fromkeys(cells.ids.tolist(), die))
    with pytest.raises(SplitError, match="labels"):
        run(other, splits, untouched)
    with pytest.raises(ProbesError, match="no preset 'ganz1924'; there is ganz2024"):
        run(cells, splits, untouched, recipe="ganz1924")
    with pytest.raises(ProbesError, match="no network 'timm:resnet5O'"):
        run(cells, splits, untouched, network="timm:resnet5O")
    with pytest.raises(WeightsError, match="no checkpoint file nowhere"):
        run(cells, splits, untouched, pretrained="nowhere.pth")
    with pytest.raises(ProbesError, match="metric='aurocc'"):
        run(cells, splits, untouched, metrics=("aurocc",))
    with pytest.raises(ProbesError, match="attention of transformers, and this network has none"):
        run(cells, splits, untouched, trainable="lora-4")
    with pytest.raises(ProbesError, match="device='cuda:77' cannot be used"):
        run(cells, splits, untouched, devices=("cpu", "cuda:77"))


def test_patches_of_another_resolution_or_without_margin_are_another_training(
    cells, splits, run, tmp_path
):
    one = replace(splits, members=splits.members[:1])
    options = {"folder": tmp_path / "out", "networks": tmp_path / "networks"}
    (as_the_paper,) = run(cells, one, **options).rows
    coarser, narrow = Pixels(), Pixels()
    coarser.mpp, narrow.patch_px = 0.5, PX
    for patches, added in ((coarser, " mpp=0.5"), (narrow, f" cut_px={PX}")):
        (row,) = run(cells, one, patches, **options).rows
        assert row["recipe"] == as_the_paper["recipe"] + added
        assert patches.n_read > len(one[0].train)  # it was trained
    assert len(Results.load(tmp_path / "out")) == len(list((tmp_path / "networks").iterdir())) == 3


def test_a_training_that_fails_is_named_and_the_others_go_on(cells, splits, run, told, tmp_path):
    only_second = set(splits[1].train.tolist()) - set(splits[0].train.tolist())
    patches = Pixels({min(only_second - set(splits[2].train.tolist()) -
                          set(splits[2].test.tolist())): lose})  # fmt: skip
    three = replace(splits, members=splits.members[:3])
    results = run(cells, three, patches, folder=tmp_path / "out")
    assert [row["split"] for row in results.rows] == [splits[0].digest, splits[2].digest]
    assert results.failed == ((splits[1].name, told[1].partition("failed, ")[2]),)
    assert "slide7.tiff" in told[1]
    told.clear()
    mended = run(cells, three, folder=tmp_path / "out")
    assert told[0] == "2 of 3 trainings are there and equal; 1 more are trained"
    assert len(mended.rows) == 3


def test_a_worker_that_is_killed_fails_its_training_alone(cells, splits, run, tmp_path):
    pair = replace(splits, members=(splits[0], splits[2]))
    others = np.concatenate([splits[2].train, splits[2].val, splits[2].test, splits[0].val])
    seldom = np.setdiff1d(splits[0].train[1:6], others)[0]  # and not among the first that are read
    settings = {"workers": 1, "memory_gib": 0}
    results = run(cells, pair, Pixels({seldom: die}), settings=settings)
    assert [name for name, _ in results.failed] == [splits[0].name]
    assert "worker" in results.failed[0][1]
    assert [row["split"] for row in results.rows] == [splits[2].digest]


def test_weights_that_change_in_the_midst_are_not_taken_for_those_it_began_with(
    cells, splits, run, tmp_path
):
    path = tmp_path / "start.safetensors"

    def lay(seed):
        recipe = endtoend.preset("ganz2024", seed=seed, **TINY)
        save_file(build(recipe, 2).network.state_dict(), path)

    lay(0)
    pair = replace(splits, members=(splits[0], splits[2]))
    seen = np.concatenate([splits[0].train, splits[0].val])
    tested = {annotation: lambda: lay(1) for annotation in np.setdiff1d(splits[0].test, seen)}
    results = run(cells, pair, Pixels(tested), pretrained=path)
    assert [row["split"] for row in results.rows] == [splits[0].digest]
    assert "have changed since this experiment began" in results.failed[0][1]


def test_a_loss_that_is_no_number_is_a_training_that_failed(cells, splits, run, told):
    one = replace(splits, members=splits.members[:1])
    results = run(cells, one, max_learning_rate=1e30, epochs=3)
    assert len(results) == 0
    assert "the loss is no finite number in epoch 1" in results.failed[0][1]


@pytest.mark.parametrize("rule", ["keep", "refuse"])
def test_one_class_is_nan_with_a_reason_where_the_splits_keep_it(
    cells, splits, run, told, tmp_path, rule
):
    alone = splits[0].train[splits[0].train % 2 == 1]
    one = replace(splits[0], train=alone, val=splits[0].val[:0])
    kept = replace(splits, members=(one,), options=splits.options | {"one_class": rule})
    options = {"folder": tmp_path / "out", "keep_scores": True}
    results = run(cells, kept, networks=tmp_path / "networks", **options)
    if rule == "refuse":
        assert len(results) == 0
        assert "1 class" in results.failed[0][1]
        return
    assert results.failed == ()
    assert np.isnan(results.rows[0]["value"])
    assert "1 class" in results.rows[0]["reason"]
    told.clear()
    run(cells, kept, networks=tmp_path / "networks", **options)
    assert told == ["1 of 1 trainings are there and equal; nothing is trained"]


def test_networks_that_are_there_are_tested_and_not_trained(cells, splits, run, told, tmp_path):
    one = replace(splits, members=splits.members[:1])
    first = run(cells, one, folder=tmp_path / "a", networks=tmp_path / "networks")
    (file,) = (tmp_path / "networks").iterdir()
    assert file.name.startswith("test_resnet-repeat0-size0.5-")
    told.clear()
    second = run(cells, one, folder=tmp_path / "b", networks=tmp_path / "networks")
    assert f"the network {file} is there" in told[0]
    assert second.rows == first.rows
    network = endtoend.TrainedNetwork.load(file)
    score = probes.evaluate(network, Pixels(), cells, splits[0])
    assert score.auroc == first.rows[0]["value"]


def test_an_interrupted_experiment_goes_on_where_it_was(cells, splits, run, told, tmp_path):
    """Interrupted when the second network is about to be tested: it is not trained again."""
    folder = tmp_path / "out"
    tested_last = set(splits[2].test.tolist()) - set(splits[0].test.tolist())
    seen = set(splits[2].train.tolist()) | set(splits[2].val.tolist())
    patches = Pixels({min(tested_last - seen): interrupt})
    pair = replace(splits, members=(splits[0], splits[2]))
    with pytest.raises(KeyboardInterrupt):
        run(cells, pair, patches, folder=folder)
    assert [row["split"] for row in Results.load(folder).rows] == [splits[0].digest]
    (left,) = (folder / "checkpoints").iterdir()
    assert (left / "best.safetensors").is_file()
    again = Pixels()
    results = run(cells, pair, again, folder=folder)
    assert again.n_read < len(splits[2].test) + 8  # not the training part: a few, to compare
    assert not (folder / "checkpoints").exists()
    assert results.rows == run(cells, pair).rows


def test_devices_share_the_trainings_and_one_that_dies_loses_its_own_alone(
    cells, run, told, tmp_path
):
    splits = probes.monte_carlo(cells, repeats=3, train=[0.5])
    others = [part for split in splits[1:] for part in (split.train, split.val, split.test)]
    poisoned = np.setdiff1d(splits[0].train, np.concatenate(others))
    patches = Pixels({poisoned[0]: die})
    options = {"folder": tmp_path / "out", "networks": tmp_path / "networks"}
    results = run(cells, splits, patches, devices=("cpu", "cpu"), **options)
    assert results.failed == (
        (splits[0].name, "the process on cpu ended with exit code 9; the same command goes on "
         "with it"),
    )  # fmt: skip
    assert [row["split"] for row in results.rows] == [split.digest for split in splits[1:]]
    told.clear()
    whole = run(cells, splits, **options)
    assert told[0] == "2 of 3 trainings are there and equal; 1 more are trained"
    alone = run(cells, splits)
    assert [row["value"] for row in whole.rows] == pytest.approx(
        [row["value"] for row in alone.rows], abs=0.05
    )


def test_patches_that_no_process_can_be_given_are_refused_in_one_line(cells, splits, run):
    patches = SimpleNamespace(ids=cells.ids, read=lambda ids: None)
    with pytest.raises(ProbesError, match="patches and annotations that can be pickled"):
        run(cells, splits, patches, devices=("cpu", "cpu"))
