import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.endtoend.sampling import EachOnce, Plan, SlideThenClass, Steps
from probes.errors import ProbesError
from tests.test_probes.drawn_cells import cells, parts, quick


@given(n=st.integers(2, 60), batch_size=st.integers(1, 20), seed=st.integers(0, 9))
def test_an_epochs_batches_hold_each_patch_once_and_differ_in_size_by_one_at_most(
    n, batch_size, seed
):
    plan = Plan(EachOnce(n), batch_size=batch_size, epochs=2, seed=seed)
    batches = [plan.batch(step) for step in range(plan.steps_per_epoch)]
    sizes = [len(batch.positions) for batch in batches]
    assert sorted(np.concatenate([batch.positions for batch in batches])) == list(range(n))
    assert np.concatenate([batch.numbers for batch in batches]).tolist() == list(range(n))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


@given(first=st.integers(0, 30), n_processes=st.integers(1, 3))
def test_batches_from_any_step_on_are_those_of_the_whole_and_shares_make_them_up(
    first, n_processes
):
    plan = Plan(EachOnce(17), batch_size=4, epochs=6, seed=3)
    shares = [
        list(Steps(plan, first=first, rank=rank, n_processes=n_processes))
        for rank in range(n_processes)
    ]
    for step, of_step in enumerate(zip(*shares, strict=True), start=first):
        whole = plan.batch(step)
        together = np.concatenate([share.positions for share in of_step])
        assert sorted(together) == sorted(whole.positions)
        assert {share.n_whole for share in of_step} == {len(whole.positions)}
    assert len(shares[0]) == plan.n_steps - first


def test_each_epoch_has_its_own_order_and_each_seed():
    orders = {
        tuple(EachOnce(9).positions(seed=seed, epoch=epoch).tolist())
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_slides_are_drawn_uniformly_then_the_classes_they_hold_then_annotations():
    """A large slide, one with a single figure among nine look-alikes, and one of one class."""
    slides = np.repeat(["large", "rare", "pure"], [200, 10, 5])
    codes = np.concatenate([np.arange(200) % 2, [1] + [0] * 9, [0] * 5])
    drawn = SlideThenClass(slides, codes, 30_000).positions(seed=1, epoch=0)
    for slide in ("large", "rare", "pure"):
        assert (slides[drawn] == slide).mean() == pytest.approx(1 / 3, abs=0.015)
    for slide, share in (("large", 0.5), ("rare", 0.5), ("pure", 0)):
        assert codes[drawn[slides[drawn] == slide]].mean() == pytest.approx(share, abs=0.02)
    counts = np.bincount(drawn, minlength=215)
    assert counts.min() > 0
    assert counts[200] == pytest.approx(5_000, rel=0.1)  # the one figure of 'rare'
    assert counts[201:210] == pytest.approx(np.full(9, 5_000 / 9), rel=0.2)


def test_slides_may_be_of_any_order_and_epochs_differ():
    slides, codes = np.array(["b", "a", "b", "a"]), np.array([1, 0, 0, 1])
    sampling = SlideThenClass(slides, codes, 64)
    epochs = [sampling.positions(seed=0, epoch=epoch).tolist() for epoch in (0, 1)]
    assert set(epochs[0]) == {0, 1, 2, 3}
    assert epochs[0] != epochs[1]


def test_a_training_by_slide_and_class_has_pseudo_epochs():
    patches, labels = cells(24, px=78)
    options = {"sampling": "slide-class", "samples_per_epoch": 40, "epochs": 3}
    found = quick(patches, labels, parts(patches.ids, train=16, val=4), **options)
    assert len(found.history) == 3
    assert found.recipe.source_px == 80
    assert "sampling=slide-class samples_per_epoch=40" in found.recipe.text


def test_annotations_without_slides_are_refused_for_it():
    patches, labels = cells(24)

    class Bare:
        labels_of = staticmethod(labels.labels_of)

    with pytest.raises(ProbesError, match="needs the annotations' column 'slide'"):
        quick(patches, Bare, parts(patches.ids, train=16), sampling="slide-class")
