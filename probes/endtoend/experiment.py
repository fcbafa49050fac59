"""The whole experiment: a network for every split, tested on the annotations that probes are.

What is there and equal is not trained again; what is done is kept at once, so that an experiment
which was interrupted goes on where it was. One training that fails does not end the others.
"""

import contextlib
import dataclasses
import logging
import shutil
import time
from dataclasses import dataclass, field

import torch

from probes.endtoend.asked import Asked, Places, cut_of
from probes.endtoend.devices import torch_device
from probes.endtoend.network import build
from probes.endtoend.recipe import changed, preset
from probes.endtoend.spread import DeadProcess, spread
from probes.endtoend.train import train
from probes.endtoend.trained import TrainedNetwork
from probes.endtoend.weights import find_weights
from probes.errors import OneClassError, SplitError, WeightsError
from probes.evaluate import evaluate
from probes.resultfiles import is_there
from probes.results import Results, check_metrics

__all__ = ["NetworkResults", "train_all"]

logger = logging.getLogger(__name__)

# Of one training, and not of the program: the others go on. ValueError: those of this package, and
# of a source whose patches are damaged; OSError: an image that is missing; RuntimeError: those of
# torch, such as a GPU without memory, or a worker process that was killed.
FAILURES = (ValueError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True, eq=False)
class NetworkResults(Results):
    """Results of networks, and which trainings have none.

    Parameters
    ----------
    rows, scores
        As for :class:`probes.Results`.
    failed : tuple of (str, str)
        Name of the split and reason, of every training that was not done.
    """

    failed: tuple = field(default=(), kw_only=True)


def train_all(
    patches,
    annotations,
    splits,
    recipe="ganz2024",
    *,
    folder=None,
    networks=None,
    checkpoints=None,
    logs=None,
    known=None,
    model=None,
    metrics=("auroc",),
    keep_scores=False,
    device="auto",
    devices=(),
    download=False,
    say=logger.info,
    settings=None,
    **changes,
) -> NetworkResults:
    """Train a network on every split and test each; what is there and equal is left as it is.

    Parameters
    ----------
    patches
        A source of pixels, at ``recipe.source_px`` for turns by any angle.
    annotations
        A table of labels; with the column of the domains where splits have a training domain.
    splits
        Of these annotations. Where one has a training domain, every domain of its test part has a
        row of its own, and the experiment is ``"cross_domain"``; else ``"learning_curve"``.
    recipe
        A ``Recipe``, or the name of a preset.
    folder
        Where results are, and are added to after each training: a folder, or a CSV of rows alone.
    networks
        Folder that keeps the networks as safetensors. One that is there is tested, not trained.
    checkpoints
        Folder of trainings that are not done, each in a folder of its own, which is deleted when
        its results are kept. By default ``checkpoints`` in ``folder``, or in ``networks``; with
        neither of the two, none are written.
    logs
        Folder of logs, one folder per training.
    known
        Results that count as there, beside those in ``folder``.
    model
        Name in the results; by default ``"end-to-end resnet50"``, with the network's name.
    metrics
        Names of ``probes.metrics.METRICS``.
    keep_scores
        Whether what is said of each test annotation is kept.
    device
        Where to train; see ``probes.endtoend.train``.
    devices
        Several, such as ``("cuda:0", "cuda:1")``, in place of ``device``: each trains on splits of
        its own, in a process of its own. The script that calls this must then be one that Python's
        ``multiprocessing`` can spawn.
    download
        Whether to fetch weights that are not on this machine.
    say
        Is told in one line each: what is there, what was done, what failed and why.
    settings
        Further keywords of ``probes.endtoend.train`` that do not decide the result: ``workers``,
        ``memory_gib``, ``augment_on``, ``checkpoint_every_s``, ``progress``, and ``devices``,
        the number of processes of each training (DDP).
    **changes
        Fields of the recipe to replace.

    Returns
    -------
    NetworkResults
        Of these splits, in their order.

    Raises
    ------
    SplitError
        If the splits are of other annotations.
    WeightsError
        If the weights to start from are not here.
    ProbesError
        If the recipe or a metric is not known, a device is not there, or the network cannot be
        trained as the recipe says.

    Notes
    -----
    A training part of one class gives NaN and the reason where the splits were made with
    ``one_class="keep"``; else it is a training that failed, as one is whose loss is no number.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np, probes
    >>> ids = np.arange(40)
    >>> pixels = np.repeat(np.uint8([40, 200] * 20), 32 * 32 * 3).reshape(40, 32, 32, 3)
    >>> patches = SimpleNamespace(ids=ids, read=lambda ids: pixels[ids])
    >>> labels = np.array(["dark", "light"] * 20)
    >>> table = SimpleNamespace(name="toy", digest="", ids=ids, labels=labels,
    ...                         labels_of=lambda ids: labels[ids])
    >>> splits = probes.monte_carlo(table, repeats=1, train=[0.5, 1.0])
    >>> results = train_all(patches, table, splits, network="timm:test_resnet", pretrained=None,
    ...                     patch_px=32, epochs=1)
    >>> [(row["model"], row["n_test"]) for row in results.rows]
    [('end-to-end test_resnet', 8), ('end-to-end test_resnet', 8)]
    """
    splits.check(annotations)
    named = preset(recipe) if isinstance(recipe, str) else recipe
    for place in devices or (device,):
        torch_device(place)
    where = devices[0] if devices else device
    resolved = changed(named, **changes).resolved(download=download, device=where)
    asked = Asked(
        annotations,
        resolved,
        model=model,
        metrics=check_metrics(metrics),
        keep_scores=keep_scores,
        places=Places(folder, networks, checkpoints, logs),
        cut=cut_of(patches, resolved),
        domain_column=splits.options.get("column", "domain"),
        keeps_one_class=splits.options.get("one_class") == "keep",
    )
    known = known or Results()
    if folder is not None and is_there(folder):
        known = Results.load(folder).merged(known)
    new = [split for split in splits if not asked.is_there(split, known)]
    _tell(say, asked, splits, new, known)
    if new:
        _check_network(resolved)
    run = _Run(asked, patches, settings or {}, say, len(new))
    found = run.spread(new, tuple(devices)) if devices else run.in_turn(new, device)
    return NetworkResults(*asked.only(known.merged(found), splits), failed=tuple(run.failed))


def _check_network(recipe):
    """Build what is trained once, so that what cannot be is said once and not of each training."""
    with torch.random.fork_rng(devices=[]):
        build(recipe, 2, find_weights(recipe.network, recipe.pretrained))


def _tell(say, asked, splits, new, known):
    """Say what is not trained again, and which rows are of another recipe."""
    n_known = len(splits) - len(new)
    if n_known:
        rest = f"{len(new)} more are trained" if new else "nothing is trained"
        say(f"{n_known} of {len(splits)} trainings are there and equal; {rest}")
    for recipe in asked.others(known, new):
        say(f"trainings on these splits are there with another recipe ({recipe}); they stay")


# ---- trainings


@dataclass(frozen=True, eq=False)
class _Outcome:
    """How a training ended: with a score, or with a reason why there is none."""

    score: object = None
    reason: str = ""
    one_class: bool = False
    told: str = ""
    wall_s: float = 0.0


@dataclass(eq=False)
class _Run:
    """Trainings one by one or spread over devices, and what came of them."""

    asked: Asked
    patches: object
    settings: dict
    say: object
    n: int
    n_done: int = 0
    failed: list = field(default_factory=list)

    def in_turn(self, splits, device):
        """Train in this process."""
        shared = (self.asked, self.patches, self.settings)
        return self._kept((split, _trained(split, device, *shared)) for split in splits)

    def spread(self, splits, devices):
        """Train on several devices at once."""
        shared = (self.asked, self.patches, self.settings | {"progress": False})
        return self._kept(spread(splits, devices, _trained, shared))

    def _kept(self, outcomes):
        """Keep the results of each training as it ends."""
        together = Results()
        with contextlib.closing(outcomes):  # interrupted, it ends its processes
            for split, outcome in outcomes:
                self.n_done += 1
                together = together.merged(self._keep(split, outcome))
        return together

    def _keep(self, split, outcome):
        if isinstance(outcome, DeadProcess):
            return self._fail(split, f"{outcome}; the same command goes on with it")
        if outcome.score is None and not (outcome.one_class and self.asked.keeps_one_class):
            return self._fail(split, outcome.reason)
        results = self.asked.results(split, outcome.score, outcome.reason)
        if self.asked.places.folder is not None:
            results.add_to(self.asked.places.folder)
        self._clean(split)  # only now is a checkpoint of no use any more
        told = f"no value, {outcome.reason}"
        if outcome.score is not None:
            told = f"{outcome.told}, AUROC {outcome.score.auroc:.3f} in {outcome.wall_s:.1f} s"
        self._say(split, told)
        return results

    def _clean(self, split):
        """Delete the checkpoints of a training, and their home with the last of them."""
        folder = self.asked.places.checkpoints_of(self.asked.name(split))
        if folder is not None and folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)  # what is left there harms nobody
            with contextlib.suppress(OSError):  # other trainings have theirs there
                folder.parent.rmdir()

    def _fail(self, split, reason):
        self.failed.append((split.name, reason))
        self._say(split, f"failed, {reason}")
        return Results()

    def _say(self, split, told):
        self.say(f"[{self.n_done}/{self.n}] {split.name}: {told}")


def _trained(split, device, asked, patches, settings):
    """Train on one split, or take the network that is there, and test it."""
    start_s = time.perf_counter()
    try:
        network, told = _network(split, device, asked, patches, settings)
        score = evaluate(network, patches, asked.annotations, split)
        _check_tested(score, split, network)
    except FAILURES as error:
        logger.info("%s failed", split.name, exc_info=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        return _Outcome(reason=reason, one_class=isinstance(error, OneClassError))
    return _Outcome(score, told=told, wall_s=time.perf_counter() - start_s)


def _network(split, device, asked, patches, settings):
    """Load the network of a training or train it; also say which of the two."""
    name = asked.name(split)
    path = asked.places.network_of(name)
    if path is not None and path.is_file():
        there = TrainedNetwork.load(path, device=device)
        if there.recipe.digest == asked.recipe.digest:
            return there, f"the network {path} is there"
    network = train(
        patches,
        asked.annotations,
        split,
        asked.recipe,
        checkpoints=asked.places.checkpoints_of(name),
        logs=asked.places.logs_of(name),
        device=device,
        **settings,
    )
    if network.recipe.digest != asked.recipe.digest:
        raise WeightsError(
            f"the weights {asked.recipe.pretrained} have changed since this experiment began; put "
            "the file back, or start again"
        )
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        network.save(path)
    best = f"best of {len(network.history)} epochs {network.best_epoch_}"
    return network, f"{len(split.train)} to train on, {best}"


def _check_tested(score, split, network):
    """Refuse a score of other annotations than the split's, or of a network of another split.

    The digest is that in the rows of probes: of equal digests, the test IDs are equal.
    """
    tested, trained = dataclasses.replace(split, test=score.ids), network.training.split
    if not tested.digest == split.digest == trained:
        raise SplitError(
            f"{split.name} is {split.digest[:15]}..., what was tested is {tested.digest[:15]}... "
            f"and the network was trained on {trained[:15]}...; these must be the same"
        )
