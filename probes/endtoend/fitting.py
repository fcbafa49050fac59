"""The training loop: step, watch, validate, keep.

Lightning Fabric does what is the same in every project: devices, precision, processes. What a
step does follows from the recipe and the step's number alone, so a training that is resumed from
any step is the one that was never interrupted.

Shape suffixes: B patches of a batch, H height, W width, C channels (3), K classes.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from probes.endtoend.augment import change
from probes.endtoend.checkpoints import Checkpoints
from probes.endtoend.parts import listed
from probes.endtoend.pixels import TrainPart, ValPart
from probes.endtoend.recipe import Recipe
from probes.endtoend.sampling import Plan
from probes.errors import LossError

__all__ = ["Fitting", "Job", "best_epoch", "run"]

logger = logging.getLogger(__name__)

# Large enough to leave ordinary steps alone, small enough to stop a single bad batch.
GRADIENT_NORM = 1.0
LOG_EVERY = 20  # steps
# Steps after which losses are looked at: looking makes a GPU wait for the CPU.
WATCH_EVERY = {"cpu": 1, "cuda": 20, "mps": 20}
AGREE_EVERY = 10  # steps after which several processes agree whether to write a checkpoint


@dataclass(frozen=True)
class Job:
    """What every process of a training is given.

    Parameters
    ----------
    recipe : Recipe
        Resolved.
    start : callable
        Builds the network as the training starts with it.
    plan : Plan
        The batches.
    train, val : TrainPart, ValPart
        Pixels and codes.
    ids : ndarray
        Annotations of the training part, for messages.
    checkpoints : Checkpoints or None
        Where states are kept.
    checkpoint_every_s : float
        Seconds between them.
    workers : int
        Processes that read and augment.
    progress : bool
        Whether to show a bar on stderr.
    """

    recipe: Recipe
    start: Callable
    plan: Plan
    train: TrainPart
    val: ValPart
    ids: np.ndarray
    checkpoints: Checkpoints | None
    checkpoint_every_s: float
    workers: int
    progress: bool


def best_epoch(history):
    """Return the epoch, counted from 1, with the lowest validation loss; the first of equals.

    Without a validation part it is the last one.

    Examples
    --------
    >>> best_epoch([{"epoch": 1, "val_loss": 0.4}, {"epoch": 2, "val_loss": 0.6}])
    1
    """
    if history[-1]["val_loss"] is None:
        return history[-1]["epoch"]
    return min(history, key=lambda row: row["val_loss"])["epoch"]


def run(fabric, job):
    """Train in one process, going on from the last checkpoint where there is one.

    Returns
    -------
    dict or None
        The last state; None in one of several processes, which leave it in the checkpoint.
    """
    fitting = Fitting(fabric, job, None if job.checkpoints is None else job.checkpoints.read())
    try:
        fitting.run()
    finally:
        for log in fabric.loggers:
            log.finalize("ended")
    return fitting.state() if fabric.world_size == 1 else None


class Fitting:
    """A training in one process, of one or several.

    Parameters
    ----------
    fabric : lightning.fabric.Fabric
        Devices, precision and processes.
    job : Job
        What is trained.
    state : dict or None
        Where to go on.
    """

    def __init__(self, fabric, job, state=None):
        self._fabric = fabric
        self._job = job
        self.step, self.history, self.best = 0, [], None
        self._loss_sum = torch.zeros((), dtype=torch.float32 if _on_mps(fabric) else torch.float64)
        self._prepare()
        if state is not None:
            with self._job.checkpoints.used():
                self._load(state)
        self._loss_sum = self._loss_sum.to(fabric.device)
        self._pending = []  # steps whose loss was not looked at yet
        self._written_at = self._logged_at = (time.monotonic(), self.step)
        self._bar = None

    def _prepare(self):
        """Build network, optimiser and schedule."""
        fabric, recipe = self._fabric, self._job.recipe
        self.classifier = self._job.start()
        if fabric.world_size > 1 and fabric.device.type == "cuda":
            # Statistics of the whole batch, as one device has them.
            torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.classifier)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimiser]
        trained = [p for p in self.classifier.parameters() if p.requires_grad]
        self._raw_optimiser = kind(
            trained,
            lr=recipe.max_learning_rate,
            weight_decay=recipe.weight_decay,
            # One pass over the weights; it would take the scaling of gradients upon itself.
            fused=recipe.precision != "16-mixed" and not _on_mps(fabric),
        )
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._raw_optimiser,
            max_lr=recipe.max_learning_rate,
            total_steps=self._job.plan.n_steps,
        )
        self._module, self._optimiser = fabric.setup(self.classifier, self._raw_optimiser)

    @property
    def ended(self):
        """Whether the last step was made, or validation has not got better for too long."""
        return self.step == self._job.plan.n_steps or self._out_of_patience

    @property
    def _out_of_patience(self):
        patience = self._job.recipe.patience
        at_end_of_epoch = self.step % self._job.plan.steps_per_epoch == 0
        if patience is None or not self.history or not at_end_of_epoch:
            return False
        return self.history[-1]["epoch"] - best_epoch(self.history) >= patience

    # The loop

    def run(self):
        """Train to the end, from wherever it is."""
        with self._showing_progress():
            self._module.train()
            for loaded in self._batches():
                self._train_on(loaded)
                self.step += 1
                self._watch()
                if self.step % self._job.plan.steps_per_epoch == 0:
                    self._end_epoch()
                self._report()
                if self.ended:
                    break
                self._write_when_due()
        self._write()

    def _batches(self):
        fabric = self._fabric
        return self._job.train.loader(
            self._job.plan,
            first=self.step,
            rank=fabric.global_rank,
            n_processes=fabric.world_size,
            workers=self._job.workers,
            pinned=fabric.device.type == "cuda",
        )

    def _train_on(self, loaded):
        """Make one step: loss, backward, clip, update, in this order."""
        fabric = self._fabric
        # Dropout follows from the step too, and differs between processes.
        torch.manual_seed(_seed_of(self._job.recipe.seed, self.step, fabric.global_rank))
        pixels_BHWC, codes_B, n_batch = self._received(loaded)
        losses_B = cross_entropy(self._module(pixels_BHWC), codes_B, reduction="sum")
        # Processes' gradients are averaged: each counts what it has of the whole batch.
        loss = losses_B * (fabric.world_size / n_batch)
        # Here and not after the step: memory that is freed and asked for at once is not given back
        # to the system between, which costs a quarter of a step of ResNet18 on a CPU.
        self._optimiser.zero_grad()
        fabric.backward(loss)
        norm = fabric.clip_gradients(
            self._module, self._optimiser, max_norm=GRADIENT_NORM, error_if_nonfinite=False
        )
        self._optimiser.step()
        self._rate = self._schedule.get_last_lr()[0]
        self._schedule.step()
        self._loss_sum += losses_B.detach()
        self._last_loss = loss.detach()
        self._pending.append((self.step, self._last_loss, norm.detach()))

    def _received(self, loaded):
        """Bring a batch to the device, and change it there where no worker has."""
        if isinstance(loaded, Exception):
            raise loaded
        pixels_BHWC, drawn_BD, codes_B, n_batch = loaded
        pixels_BHWC, codes_B = self._fabric.to_device((pixels_BHWC, codes_B))
        if drawn_BD is not None:
            pixels_BHWC = change(pixels_BHWC, drawn_BD, self._job.recipe.patch_px)
        return pixels_BHWC, codes_B, n_batch

    # Watching

    def _watch(self):
        """Look at the losses every few steps."""
        if len(self._pending) >= WATCH_EVERY.get(self._fabric.device.type, 1):
            self._look()

    def _look(self):
        """Stop at the first step whose loss, or gradient, is no finite number.

        Raises
        ------
        LossError
            Naming the annotations of that step's batch.
        """
        if not self._pending:
            return
        steps, losses, norms = zip(*self._pending, strict=True)
        self._pending = []
        finite = torch.stack(losses).isfinite()
        if self._job.recipe.precision != "16-mixed":  # which tries scales until gradients fit
            finite = finite & torch.stack(norms).isfinite()
        broken = (~finite).float()
        if self._fabric.world_size > 1:
            broken = self._fabric.all_reduce(broken, reduce_op="sum")
        if broken.any():
            first = int(broken.nonzero()[0, 0])
            raise LossError(self._lost(steps[first], losses[first].item()))

    def _lost(self, step, loss):
        batch = self._job.plan.batch(step)
        kept = self._job.checkpoints
        before = f"; {kept.last} holds a step before it" if kept and kept.last.exists() else ""
        what = "loss" if not np.isfinite(loss) else f"gradient (loss {loss:.3g})"
        return (
            f"the {what} is no finite number in epoch {batch.epoch + 1}, step {step + 1}, on "
            f"annotations {listed(self._job.ids[np.sort(batch.positions)])}: give less than "
            f"max_learning_rate={self._job.recipe.max_learning_rate}, or look at these patches and "
            f"at the weights that the network started from{before}"
        )

    # Ends of epochs

    def _end_epoch(self):
        """Validate, note the epoch, and copy its weights where they are the best so far."""
        self._look()
        val_loss = self._validated()
        epoch = self.step // self._job.plan.steps_per_epoch
        row = {
            "epoch": epoch,
            "train_loss": self._summed(self._loss_sum).item() / self._job.plan.n_per_epoch,
            "val_loss": val_loss,
            "learning_rate": self._rate,
        }
        self._loss_sum.zero_()
        self.history.append(row)
        if val_loss is not None and best_epoch(self.history) == epoch:
            self.best = _copied(self.classifier.state_dict())
        logger.info("epoch %d: %s", epoch, row)
        self._log({name: value for name, value in row.items() if value is not None})
        if self._bar is not None:
            shown = {"train": row["train_loss"], "val": val_loss}
            self._bar.set_postfix({k: f"{v:.3f}" for k, v in shown.items() if v is not None})

    def _validated(self):
        """Return the mean loss over the validation part; None where it is empty."""
        n = len(self._job.val)
        if n == 0:
            return None
        fabric = self._fabric
        total = torch.zeros_like(self._loss_sum)
        self.classifier.eval()
        for loaded in self._val_batches:
            if isinstance(loaded, Exception):
                raise loaded
            pixels_BHWC, codes_B = fabric.to_device(loaded)
            with torch.no_grad(), fabric.autocast():
                logits_BK = self.classifier(pixels_BHWC)
            total += cross_entropy(logits_BK.float(), codes_B, reduction="sum")
        self._module.train()
        mean = self._summed(total).item() / n
        if not np.isfinite(mean):
            raise LossError(
                f"the validation loss is {mean} after epoch "
                f"{self.step // self._job.plan.steps_per_epoch}: give less than "
                f"max_learning_rate={self._job.recipe.max_learning_rate}"
            )
        return mean

    @property
    def _val_batches(self):
        if not hasattr(self, "_val_loader"):
            self._val_loader = self._job.val.loader(
                batch_size=max(64, self._job.recipe.batch_size),
                rank=self._fabric.global_rank,
                n_processes=self._fabric.world_size,
                workers=self._job.workers,
            )
        return self._val_loader

    def _summed(self, value):
        """Add up what every process has."""
        if self._fabric.world_size == 1:
            return value
        return self._fabric.all_reduce(value, reduce_op="sum")

    # States

    def state(self):
        """Return all that the next step needs, and the best weights so far."""
        return {
            "step": self.step,
            "ended": self.ended,
            "history": self.history,
            "loss_sum": self._loss_sum.item(),
            "network": self.classifier.state_dict(),
            "best": self.best,
            "optimiser": self._raw_optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "precision": self._fabric.strategy.precision.state_dict(),
        }

    def _load(self, state):
        self.step, self.history, self.best = state["step"], state["history"], state["best"]
        if self.step not in range(self._job.plan.n_steps + 1):
            raise ValueError(f"step {self.step} of {self._job.plan.n_steps}")
        if self._fabric.is_global_zero:  # it wrote what all processes had together
            self._loss_sum.fill_(state["loss_sum"])
        self.classifier.load_state_dict(state["network"])
        self._raw_optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._fabric.strategy.precision.load_state_dict(state["precision"])

    def _write_when_due(self):
        if self._job.checkpoints is None:
            return
        due = time.monotonic() - self._written_at[0] >= self._job.checkpoint_every_s
        if self._fabric.world_size > 1:
            if self.step % AGREE_EVERY:
                return
            due = self._fabric.broadcast(due)
        if due:
            self._write()

    def _write(self):
        """Write a checkpoint, after a look at the losses: a spoilt state is never kept."""
        self._look()
        total = self._summed(self._loss_sum.clone())
        self._loss_sum.copy_(total if self._fabric.is_global_zero else torch.zeros_like(total))
        if self._fabric.is_global_zero and self._job.checkpoints is not None:
            self._job.checkpoints.write(self.state())
        self._written_at = (time.monotonic(), self.step)

    # Telling

    def _report(self):
        """Log loss, learning rate and speed every few steps, and move the bar."""
        if self._bar is not None:
            self._bar.update()
        if self._fabric.loggers and self.step % LOG_EVERY == 0:
            now, (then, step) = time.monotonic(), self._logged_at
            share = (self.step - step) / self._job.plan.steps_per_epoch
            values = {
                "loss": self._last_loss.item(),
                "learning_rate": self._rate,
                "images_per_s": share * self._job.plan.n_per_epoch / (now - then),
            }
            self._log(values)
            self._logged_at = (now, self.step)

    def _log(self, values):
        if self._fabric.loggers:
            self._fabric.log_dict(values, step=self.step)

    @contextlib.contextmanager
    def _showing_progress(self):
        if not self._job.progress or not self._fabric.is_global_zero:
            yield
            return
        total = self._job.plan.n_steps
        with tqdm(
            total=total, initial=self.step, unit="step", desc="training", file=sys.stderr
        ) as self._bar:
            yield


def _copied(weights):
    """Copy weights: what the optimiser does next does not reach them."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}


def _seed_of(seed, step, rank):
    """Mix three numbers into one, so that neighbours share nothing."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0])


def _on_mps(fabric):
    return fabric.device.type == "mps"
