"""Train a network end to end on the same annotations that the probes are fitted on.

What is decided here is what makes two trainings comparable: which annotations, which recipe, and
where a training that was begun goes on.
"""

import contextlib
import functools
import importlib.util
import logging
import tempfile

import torch

from probes import errors
from probes.endtoend.checkpoints import Checkpoints
from probes.endtoend.devices import quiet_lightning, start_fabric, torch_device
from probes.endtoend.fitting import Job, best_epoch, run
from probes.endtoend.network import build
from probes.endtoend.parts import Parts
from probes.endtoend.pixels import TrainPart, ValPart, pixels_of
from probes.endtoend.recipe import Recipe, changed, preset
from probes.endtoend.sampling import Plan
from probes.endtoend.trained import TrainedNetwork
from probes.endtoend.weights import find_weights
from probes.errors import ProbesError

__all__ = ["train"]

logger = logging.getLogger(__name__)


def train(
    patches,
    annotations,
    split,
    recipe: Recipe | str = "ganz2024",
    *,
    checkpoints=None,
    checkpoint_every_s: float = 60.0,
    logs=None,
    device: str = "auto",
    devices: int = 1,
    workers: int = 0,
    memory_gib: float = 8.0,
    augment_on: str = "auto",
    download: bool = False,
    progress: bool = False,
    **changes,
) -> TrainedNetwork:
    """Train a network on the training part and keep the epoch with the least validation loss.

    Parameters
    ----------
    patches
        A source of pixels: ``ids`` and ``read(ids)`` -> uint8 (n, px, px, 3). Turns by any angle
        need px of at least ``recipe.source_px``; smaller patches are turned by quarters. With
        ``workers`` it must work in another process.
    annotations
        A table with ``labels_of(ids)``, one class name per annotation; for
        ``sampling="slide-class"`` also ``ids`` and ``column("slide")``.
    split
        ``train`` and ``val``, arrays of annotation IDs. ``test`` is never looked at. With an empty
        ``val`` the last epoch is kept, and its ``val_loss`` in the history is None.
    recipe
        A :class:`Recipe`, or the name of a preset.
    checkpoints
        Folder of this training's own checkpoints. A training that ended there is returned at once,
        one that was cut short goes on: on a CPU to the same weights, bit for bit, as had it not
        been. None keeps none.
    checkpoint_every_s
        Seconds between checkpoints, which is what a kill can cost.
    logs
        Folder for ``metrics.csv``, and for TensorBoard's events where that is installed; each start
        writes into a ``version_N`` of its own there.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    devices
        How many of them, with a process each; the batch is divided among them. On the CPU,
        processes.
    workers
        Processes that read and augment patches, per device; 0 does it in this one.
    memory_gib
        Pixels of both parts are held in memory as uint8 where they fit into so many GiB, else read
        as they are needed.
    augment_on
        ``"workers"``, ``"device"``, or ``"auto"``: the device where that is a GPU.
    download
        Fetch weights that are not on this machine; nothing is fetched otherwise.
    progress
        Whether to show a bar on stderr.
    **changes
        Fields of the recipe to replace, such as ``epochs=20``.

    Returns
    -------
    TrainedNetwork
        With a copy of the best epoch's weights.

    Raises
    ------
    OneClassError
        If the training part holds one class only.
    WeightsError
        If the weights to start from are not here, or not of this network.
    CheckpointError
        If the folder holds checkpoints of another training, cannot be written, or another program
        is training there.
    LossError
        If the loss is no longer a finite number; the message names the batch's annotations, and the
        last checkpoint stays.
    ProbesError
        If a part, a device or a value of the recipe cannot be used.

    Notes
    -----
    Ganz et al.: ImageNet ResNet50, one-cycle learning rate with maximum 1e-4, best model by
    validation loss, random colour jitter, blur, flips and rotations. Here every training annotation
    is seen once per epoch unless ``sampling="slide-class"``. Gradients are clipped to norm 1
    between backward and step. torch's random state is left as it was found.

    The same seed gives the same weights on a CPU, with any number of workers and wherever patches
    are augmented; on a GPU sums may differ in the last bits. Batch normalisation sees the whole
    batch on several GPUs, and on several CPU processes what each has of it.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> ids = np.arange(8)
    >>> pixels = np.repeat(np.uint8([40, 200] * 4), 32 * 32 * 3).reshape(8, 32, 32, 3)
    >>> patches = SimpleNamespace(ids=ids, read=lambda ids: pixels[ids])
    >>> labels = np.array(["dark", "light"] * 4)
    >>> annotations = SimpleNamespace(labels_of=lambda ids: labels[ids])
    >>> split = SimpleNamespace(train=ids[:6], val=ids[6:], test=ids[:0])
    >>> options = {"network": "timm:test_resnet", "pretrained": None, "patch_px": 32}
    >>> trained = train(patches, annotations, split, epochs=1, **options)
    >>> trained.predict_proba(pixels).shape, trained.best_epoch_
    ((8, 2), 1)
    """
    _check_counts(devices=devices, least=1)
    _check_counts(workers=workers, checkpoint_every_s=checkpoint_every_s, least=0)
    recipe = preset(recipe, **changes) if isinstance(recipe, str) else changed(recipe, **changes)
    recipe = recipe.resolved(download=download, device=device)
    weights = find_weights(recipe.network, recipe.pretrained)
    parts = Parts.of(patches, annotations, split)
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_lightning())
        stack.enter_context(_random_state_kept(torch_device(device)))
        folder = checkpoints
        if folder is None and devices > 1:  # in which processes hand over what they trained
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        kept = None if folder is None else Checkpoints(folder, parts.identity(recipe))
        if kept is not None:
            stack.enter_context(kept.held())
        state = None if kept is None else kept.read()
        start = functools.partial(build, recipe, len(parts.classes))
        if state is None or not state["ended"]:
            job = Job(
                recipe=recipe,
                start=functools.partial(start, weights=weights),
                plan=_plan(recipe, parts, annotations, devices),
                **_loaded(patches, parts, recipe, memory_gib, _augments_here(augment_on, device)),
                ids=parts.train_ids,
                checkpoints=kept,
                checkpoint_every_s=checkpoint_every_s,
                workers=workers,
                progress=progress,
            )
            fabric = start_fabric(recipe.precision, device, devices, _loggers(logs))
            state = _launched(fabric, job)
        with contextlib.nullcontext() if kept is None else kept.used():
            trained = _trained(state, start(), recipe, parts, device)
        if checkpoints is not None:
            trained.save(kept.best)
    return trained


def _check_counts(*, least, **counts):
    for name, value in counts.items():
        if value < least:
            raise ProbesError(f"{name}={value} is too small; give at least {least}")


def _plan(recipe, parts, annotations, devices):
    """Say which batches there are; a batch larger than the training part is reduced to it."""
    sampling = parts.sampling(recipe, annotations)
    batch_size = min(recipe.batch_size, sampling.n_per_epoch)
    if batch_size < recipe.batch_size:
        logger.warning(
            "batch_size=%d reduced to the %d training annotations", recipe.batch_size, batch_size
        )
    plan = Plan(sampling, batch_size=batch_size, epochs=recipe.epochs, seed=recipe.seed)
    smallest = sampling.n_per_epoch // plan.steps_per_epoch
    if smallest < devices:
        raise ProbesError(
            f"devices={devices} and batches of {smallest} patches; give devices={smallest} at most"
        )
    if recipe.patience is not None and len(parts.val_ids) == 0:
        raise ProbesError(
            f"patience={recipe.patience} waits for the validation loss and the split has no "
            "validation part; give patience=None"
        )
    return plan


def _augments_here(augment_on, device):
    """Whether patches are changed where they are loaded, and not on the device."""
    if augment_on not in ("auto", "workers", "device"):
        raise ProbesError(f"augment_on={augment_on!r}; give 'auto', 'workers' or 'device'")
    on_gpu = torch_device(device).type == "cuda"
    return augment_on == "workers" or (augment_on == "auto" and not on_gpu)


def _loaded(patches, parts, recipe, memory_gib, augment_here):
    """Return both parts with their pixels: of each patch, what can come into view."""
    if parts.px < recipe.patch_px:
        raise ProbesError(
            f"patch_px={recipe.patch_px} is asked and the patches are {parts.px} px wide; "
            f"cut larger patches or give patch_px={parts.px}"
        )
    train_px = min(recipe.source_px, parts.px)
    read = [(parts.train_ids, train_px), (parts.val_ids, recipe.patch_px)]
    train_pixels, val_pixels = pixels_of(patches, read, memory_gib=memory_gib)
    return {
        "train": TrainPart(train_pixels, parts.train_codes, recipe, augment_here=augment_here),
        "val": ValPart(val_pixels, parts.val_codes),
    }


def _loggers(logs):
    """Set up Fabric's logs; TensorBoard's only where it is installed."""
    if logs is None:
        return []
    from lightning.fabric.loggers import CSVLogger, TensorBoardLogger

    loggers = [CSVLogger(str(logs), name=None)]
    if importlib.util.find_spec("tensorboard") or importlib.util.find_spec("tensorboardX"):
        loggers.append(TensorBoardLogger(str(logs), name=None, version=loggers[0].version))
    else:
        logger.info("no TensorBoard log: pip install tensorboard")
    return loggers


def _launched(fabric, job):
    """Train, in this process or in several, and return the last state."""
    try:
        # Not as an argument: Fabric looks through these for modules, and refuses frozen records.
        state = fabric.launch(functools.partial(run, job=job))
    except torch.multiprocessing.ProcessRaisedException as error:
        raise _of_process(error) from error
    return job.checkpoints.read() if state is None else state


def _of_process(error):
    """Return what another process raised, of which its last line is left."""
    name, _, message = str(error).strip().splitlines()[-1].partition(": ")
    kind = getattr(errors, name.rpartition(".")[2], None)
    return kind(message) if kind is not None else ProbesError(f"a process failed: {message}")


def _trained(state, classifier, recipe, parts, device):
    """Put the best epoch's weights into a network of its own."""
    best = best_epoch(state["history"])
    classifier.load_state_dict(state["network"] if state["best"] is None else state["best"])
    classifier.merge_adapters()
    history = [row | {"best": row["epoch"] == best} for row in state["history"]]
    place = torch_device(device)
    return TrainedNetwork(
        recipe, parts.training, parts.classes, history, classifier.to(place).eval(), place
    )


@contextlib.contextmanager
def _random_state_kept(device):
    """Put torch's random state back at the end."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
