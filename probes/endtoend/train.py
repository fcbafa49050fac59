"""Train a network end to end on the same annotations that the probes are fitted on.

Lightning runs the loop; what is decided here is what makes two trainings comparable: which
annotations, in which order, changed how, and which epoch is kept.

Shape suffixes: N patches of a part, B patches of a batch, H height, W width, C channels, K classes.
"""

import contextlib
import logging
import math
import tempfile
import warnings

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from probes.endtoend.augment import augment, centre_crop, source_px
from probes.endtoend.network import (
    Classifier,
    Recipe,
    TrainedNetwork,
    checked_pixels,
    torch_device,
)
from probes.errors import OneClassError, ProbesError

__all__ = ["train"]

logger = logging.getLogger(__name__)

# Large enough to leave ordinary steps alone, small enough to stop a single bad batch.
GRADIENT_NORM = 1.0
READ_BLOCK = 256  # patches asked of a source at once


def train(
    patches,
    annotations,
    split,
    *,
    network: str = "timm:resnet50",
    pretrained=None,
    epochs: int = 10,
    batch_size: int = 16,
    max_learning_rate: float = 1e-4,
    weight_decay: float = 0.01,
    augmented: bool = True,
    patch_px: int | None = None,
    seed: int = 0,
    workers: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> TrainedNetwork:
    """Train a network on the training part and keep the epoch with the least validation loss.

    Parameters
    ----------
    patches
        A source of pixels: ``ids`` and ``read(ids)`` -> uint8 (n, px, px, 3). Turns by any angle
        need px of at least ``source_px(patch_px)``; smaller patches are turned by quarters.
    annotations
        A table with ``labels_of(ids)``, one class name per annotation.
    split
        ``train`` and ``val``, arrays of annotation IDs. ``test`` is never looked at. With an empty
        ``val`` the last epoch is kept, and its ``val_loss`` in the history is None.
    network
        ``"timm:NAME"``, built with one logit per class and never downloaded.
    pretrained
        Checkpoint file (safetensors, or torch weights only) in timm's key names to start from;
        None starts from random weights.
    epochs
        Passes over the training part, at least 1.
    batch_size
        Patches per step at most. Batches of an epoch differ in size by one at most, so none is
        left with a single patch, and no training annotation is left out.
    max_learning_rate, weight_decay
        Peak of the one-cycle schedule, and AdamW's decay.
    augmented
        Whether training patches are changed at random (``probes.endtoend.augment``).
    patch_px
        Side of the network's input in pixels; None takes the patches as they come.
    seed
        Non-negative; decides first weights, order and augmentation. On a CPU the same seed gives
        the same weights, with any number of workers; on a GPU sums may differ in the last bits.
    workers
        Processes that augment; 0 does it in this one.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    progress
        Whether to show a bar on stderr.

    Returns
    -------
    TrainedNetwork
        With a copy of the best epoch's weights.

    Raises
    ------
    OneClassError
        If the training part holds one class only.
    ProbesError
        If a part cannot be used, the network or checkpoint is not known, or the loss is no longer a
        finite number; the message names the batch's annotations.

    Notes
    -----
    Ganz et al.: ImageNet ResNet50, one-cycle learning rate with maximum 1e-4, best model by
    validation loss, random colour jitter, blur, flips and rotations. Here every training annotation
    is seen once per epoch, where their later code draws slides and classes uniformly, and the
    optimiser is AdamW. Gradients are clipped to norm 1 between backward and step.

    The pixels of the training and validation parts are kept in memory as uint8, training patches
    cropped to ``source_px(patch_px)`` and validation patches to ``patch_px``: 10,000 training
    patches at patch_px=224 take 2.8 GiB. torch's random state is left as it was found.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ids = np.arange(8)
    >>> pixels = np.repeat(np.uint8([40, 200] * 4), 32 * 32 * 3).reshape(8, 32, 32, 3)
    >>> patches = SimpleNamespace(ids=ids, read=lambda ids: pixels[ids])
    >>> labels = np.array(["dark", "light"] * 4)
    >>> annotations = SimpleNamespace(labels_of=lambda ids: labels[ids])
    >>> split = SimpleNamespace(train=ids[:6], val=ids[6:], test=ids[:0])
    >>> trained = train(patches, annotations, split, network="timm:test_resnet", epochs=1)
    >>> trained.predict_proba(pixels).shape, trained.best_epoch_
    ((8, 2), 1)
    """
    _check_counts(epochs=(epochs, 1), batch_size=(batch_size, 1), seed=(seed, 0))
    train_ids, val_ids = np.asarray(split.train), np.asarray(split.val)
    classes, train_codes_N, val_codes_N = _codes(annotations, train_ids, val_ids)
    patch_px = patch_px or _width_px(patches, train_ids)
    recipe = Recipe(
        network=network,
        patch_px=patch_px,
        epochs=epochs,
        batch_size=_batch_size_within(batch_size, len(train_ids)),
        max_learning_rate=max_learning_rate,
        weight_decay=weight_decay,
        seed=seed,
        augmented=augmented,
        pretrained=None if pretrained is None else str(pretrained),
        n_train=len(train_ids),
        n_val=len(val_ids),
    )
    device = torch_device(device)
    with _seeded(seed, device):
        fitting = Fitting(recipe, len(classes), {"training": train_ids, "validation": val_ids})
        train_pixels_NHWC = _read(patches, train_ids, source_px(patch_px), patch_px)
        train_part = Part(train_pixels_NHWC, train_codes_N, recipe, augmented=augmented)
        val_part = Part(_read(patches, val_ids, patch_px, patch_px), val_codes_N, recipe)
        loaders = _train_loader(train_part, recipe, workers), _val_loader(val_part, recipe, workers)
        best = _fit(fitting, *loaders, device=device, progress=progress)
    history = [row | {"best": row["epoch"] == best} for row in fitting.history]
    return TrainedNetwork(recipe, classes, history, fitting.classifier.eval(), device)


class Part(Dataset):
    """The pixels and class codes of one part of a split, read a batch at a time.

    An index is a whole batch, ``(epoch, positions)``, so what a worker draws depends on nothing
    that the worker knows by itself.
    """

    def __init__(self, pixels_NHWC, codes_N, recipe, *, augmented=False):
        self.pixels_NHWC = pixels_NHWC
        self.codes_N = codes_N
        self.recipe = recipe
        self.augmented = augmented

    def __len__(self):
        return len(self.codes_N)

    def __getitem__(self, batch):
        epoch, positions_B = batch
        positions_B = torch.as_tensor(positions_B)
        return self._pixels(epoch, positions_B), self.codes_N[positions_B], positions_B

    def _pixels(self, epoch, positions_B):
        if not self.augmented:
            return centre_crop(self.pixels_NHWC[positions_B], self.recipe.patch_px)
        changed = [self._changed(epoch, position) for position in positions_B.tolist()]
        return torch.stack(changed).permute(0, 2, 3, 1).contiguous()

    def _changed(self, epoch, position):
        pixels_CHW = self.pixels_NHWC[position].permute(2, 0, 1)
        recipe = self.recipe
        return augment(pixels_CHW, recipe.patch_px, seed=recipe.seed, epoch=epoch, sample=position)


class ShuffledBatches(Sampler):
    """Batches ``(epoch, positions)`` in an order drawn from the seed and the epoch.

    Lightning calls ``set_epoch`` before each epoch.
    """

    def __init__(self, n, *, batch_size, seed):
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self):
        return math.ceil(self.n / self.batch_size)

    def __iter__(self):
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        for positions_B in np.array_split(order, len(self)):
            yield self.epoch, positions_B

    def set_epoch(self, epoch):
        self.epoch = epoch


class Fitting(lightning.LightningModule):
    """What Lightning needs to know: the loss of a batch, the optimiser, what to note per epoch."""

    def __init__(self, recipe, n_classes, ids):
        super().__init__()
        self.recipe = recipe
        self.ids = ids
        self.classifier = Classifier(recipe.network, n_classes=n_classes, patch_px=recipe.patch_px)
        if recipe.pretrained is not None:
            self.classifier.start_from(recipe.pretrained)
        self.history = []

    def training_step(self, batch, _):
        return self._loss("training", "train_loss", batch)

    def validation_step(self, batch, _):
        return self._loss("validation", "val_loss", batch)

    def on_train_epoch_end(self):
        losses = self.trainer.callback_metrics
        val_loss = losses["val_loss"].item() if "val_loss" in losses else None
        self.history.append(
            {
                "epoch": self.current_epoch + 1,
                "train_loss": losses["train_loss"].item(),
                "val_loss": val_loss,
            }
        )

    def configure_optimizers(self):
        recipe = self.recipe
        optimiser = torch.optim.AdamW(
            self.parameters(), lr=recipe.max_learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=recipe.max_learning_rate,
            total_steps=self.trainer.estimated_stepping_batches,
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _loss(self, part, name, batch):
        pixels_BHWC, codes_B, positions_B = batch
        loss = cross_entropy(self.classifier(pixels_BHWC), codes_B)
        if not torch.isfinite(loss):
            raise ProbesError(self._lost(part, loss, self.ids[part][positions_B.cpu()]))
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(codes_B))
        return loss

    def _lost(self, part, loss, ids):
        return (
            f"the {part} loss is {loss.item()} in epoch {self.current_epoch + 1} on annotations "
            f"{_listed(ids)}; give less than max_learning_rate={self.recipe.max_learning_rate}, "
            "or look at these patches and the weights the network started from"
        )


class StepBar(Callback):
    """A bar on stderr, a step at a time; Lightning's own writes to stdout, where results go."""

    def on_train_start(self, trainer, fitting):
        self.bar = tqdm(total=trainer.estimated_stepping_batches, unit="step", desc="training")

    def on_train_batch_end(self, trainer, fitting, outputs, batch, batch_idx):
        self.bar.update()

    def on_train_epoch_end(self, trainer, fitting):
        self.bar.set_postfix(fitting.history[-1] if fitting.history else {})

    def teardown(self, trainer, fitting, stage):
        self.bar.close()


def _fit(fitting, train_loader, val_loader, *, device, progress):
    """Train, put back the best epoch's weights, and return that epoch, counted from 1."""
    with tempfile.TemporaryDirectory() as folder, _quiet_lightning():
        kept = ModelCheckpoint(
            folder,
            monitor=None if val_loader is None else "val_loss",
            save_weights_only=True,
        )
        trainer = _trainer(fitting.recipe, [kept, *([StepBar()] if progress else [])], device)
        trainer.fit(fitting, train_loader, val_loader)
        best = torch.load(kept.best_model_path, map_location="cpu", weights_only=True)
    fitting.load_state_dict(best["state_dict"])
    return best["epoch"] + 1


def _trainer(recipe, callbacks, device):
    """Set up Lightning: one device, gradients clipped after backward, nothing written or shown."""
    return lightning.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None or device.type == "mps" else [device.index],
        max_epochs=recipe.epochs,
        gradient_clip_val=GRADIENT_NORM,
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


@contextlib.contextmanager
def _quiet_lightning():
    """Keep back Lightning's notes on hardware, and warnings that a user can do nothing about."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # workers=0 is the documented default; the advice to raise it is not about an error.
            warnings.filterwarnings("ignore", ".*does not have many workers.*")
            # Lightning 2.6 uses what torch 2.14 deprecates; it is theirs to change.
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            # A split without a validation part is documented: the last epoch is kept.
            warnings.filterwarnings("ignore", ".*defined a `validation_step` but have no.*")
            yield
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _seeded(seed, device):
    """Seed torch, and put its random state back at the end."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _train_loader(part, recipe, workers):
    batches = ShuffledBatches(len(part), batch_size=recipe.batch_size, seed=recipe.seed)
    return _loader(part, batches, workers)


def _val_loader(part, recipe, workers):
    """Load the validation part in its own order; None where it is empty."""
    if len(part) == 0:
        return None
    positions_N = np.arange(len(part))
    n_batches = math.ceil(len(part) / recipe.batch_size)
    batches = [(0, positions_B) for positions_B in np.array_split(positions_N, n_batches)]
    return _loader(part, batches, workers)


def _loader(part, batches, workers):
    return DataLoader(
        part,
        sampler=batches,
        batch_size=None,  # the sampler gives whole batches
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),  # seeds the workers, which draw nothing of it
    )


def _codes(annotations, train_ids, val_ids):
    """Return the classes, and each part's labels as positions among them."""
    train_labels = _labels(annotations, train_ids)
    val_labels = _labels(annotations, val_ids)
    classes = np.unique(train_labels)
    if len(classes) < 2:
        raise OneClassError(
            f"the {len(train_ids)} training annotations hold {len(classes)} class(es) "
            f"{classes.tolist()}; give a split whose training part holds at least 2"
        )
    new = np.setdiff1d(val_labels, classes)
    if len(new):
        raise ProbesError(
            f"the validation part holds {new.tolist()}, which no training annotation has; "
            "give a larger or stratified training part"
        )
    codes = [
        torch.from_numpy(np.searchsorted(classes, part)) for part in (train_labels, val_labels)
    ]
    return classes, *codes


def _labels(annotations, ids):
    """Return the labels as fixed-width strings, whose order NumPy searches right."""
    return np.asarray(annotations.labels_of(ids)).astype(np.str_)


def _width_px(patches, ids):
    """Ask one patch for its width in pixels."""
    return checked_pixels(patches.read(ids[:1])).shape[1]


def _read(patches, ids, keep_px, patch_px):
    """Read the pixels of a part in blocks, keeping of each patch what can come into view."""
    blocks = [ids[start : start + READ_BLOCK] for start in range(0, len(ids), READ_BLOCK)]
    pixels_NHWC = torch.empty((0, patch_px, patch_px, 3), dtype=torch.uint8)
    for number, block in enumerate(blocks):
        cropped = _cropped(checked_pixels(patches.read(block)), keep_px, patch_px)
        if number == 0:
            pixels_NHWC = torch.empty((len(ids), *cropped.shape[1:]), dtype=torch.uint8)
            logger.info("%d patches take %.2f GiB", len(ids), pixels_NHWC.nbytes / 2**30)
        start = number * READ_BLOCK
        pixels_NHWC.numpy()[start : start + len(block)] = cropped
    return pixels_NHWC


def _cropped(pixels_NHWC, keep_px, patch_px):
    """Crop to what can come into view, which is all of a patch without that margin."""
    return centre_crop(pixels_NHWC, max(patch_px, min(keep_px, pixels_NHWC.shape[1])))


def _batch_size_within(batch_size, n_train):
    """Reduce a batch to the training part where it is larger, and say so."""
    if batch_size <= n_train:
        return batch_size
    logger.warning("batch_size=%d reduced to the %d training annotations", batch_size, n_train)
    return n_train


def _check_counts(**counts):
    """Refuse a number below its least value, given as ``name=(value, least)``."""
    for name, (value, least) in counts.items():
        if value < least:
            raise ProbesError(f"{name}={value} is too small; give at least {least}")


def _listed(ids, most=16):
    """Write IDs in a line, the first ones where they are many."""
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(str(annotation) for annotation in ids[:most]) + more
