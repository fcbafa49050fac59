"""What decides a training, apart from pixels, labels and split: a record with a digest.

Two trainings with recipes of one digest on one split of one dataset are the same training.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass

from probes.endtoend.augment import source_px
from probes.endtoend.devices import checked_precision
from probes.endtoend.weights import file_digest, find_weights
from probes.errors import ProbesError

__all__ = ["PAPER_MPP", "PRESETS", "Recipe", "preset"]

PAPER_MPP = 0.25  # um/px of the patches of Ganz et al.; cutting them is the source's matter
JITTER_SHARE = 0.1  # of a patch, by which the authors' later code moves its centre
SAMPLES_PER_EPOCH = 1_280  # of the authors' later code
DIGITS = 12  # of a digest, where a person reads it

AUGMENTATIONS = ("ganz2024", "none")
SAMPLINGS = ("each-once", "slide-class")
OPTIMISERS = ("adam", "adamw")
TRAINABLE = r"all|head|last-[1-9]\d*-blocks|lora-[1-9]\d*"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a training apart from the pixels, the labels and the split.

    Parameters
    ----------
    name
        Preset that it was made from; '' for none.
    network
        ``"timm:NAME"``.
    pretrained
        Weights to start from: None for random ones, ``"imagenet"`` for those that timm lists for
        the network, else a checkpoint file.
    weights
        What these are: ``"random"`` or ``"sha256:..."`` of the file; filled in by ``resolved``.
    trainable
        ``"all"``, ``"head"`` (the classification layer), ``"last-K-blocks"`` (and the layers behind
        them) or ``"lora-RANK"``; a number K is the third.
    patch_px
        Side of the network's input in pixels.
    augmentation
        ``"ganz2024"`` or ``"none"``.
    sampling
        ``"each-once"``: every training annotation once per epoch. ``"slide-class"``: a slide
        uniformly, one of its classes uniformly, one of those annotations, centre moved.
    samples_per_epoch
        Patches of an epoch of ``"slide-class"``; an epoch of ``"each-once"`` is the training part.
    epochs, batch_size
        At least 1. A training part smaller than a batch is one batch.
    optimiser
        ``"adam"`` or ``"adamw"``.
    max_learning_rate, weight_decay
        Peak of the one-cycle schedule, and the optimiser's decay.
    patience
        Epochs without a lower validation loss after which training stops; None for never.
    precision
        ``"32"``, ``"bf16-mixed"``, ``"16-mixed"``, or ``"auto"``: bf16-mixed on a GPU that has it.
    seed
        Non-negative; decides first weights, order, augmentation and dropout.

    Raises
    ------
    ProbesError
        If a value is none of these.

    Examples
    --------
    >>> Recipe(trainable=2, epochs=3).trainable
    'last-2-blocks'
    """

    name: str = ""
    network: str = "timm:resnet50"
    pretrained: str | None = None
    weights: str = ""
    trainable: str = "all"
    patch_px: int = 224
    augmentation: str = "ganz2024"
    sampling: str = "each-once"
    samples_per_epoch: int | None = None
    epochs: int = 100
    batch_size: int = 16
    optimiser: str = "adam"
    max_learning_rate: float = 1e-4
    weight_decay: float = 0.0
    patience: int | None = None
    precision: str = "32"
    seed: int = 0

    def __post_init__(self):
        self._settle()
        self._check_counts()
        self._check_choices()

    def _settle(self):
        """Bring what may be written in two ways into one."""
        settled = {
            "pretrained": None if self.pretrained is None else str(self.pretrained),
            "trainable": f"last-{self.trainable}-blocks"
            if isinstance(self.trainable, int)
            else self.trainable,
        }
        if self.sampling == "slide-class" and self.samples_per_epoch is None:
            settled["samples_per_epoch"] = SAMPLES_PER_EPOCH
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def _check_counts(self):
        least = {"patch_px": 2, "epochs": 1, "batch_size": 1, "seed": 0}
        optional = {"samples_per_epoch": 1, "patience": 1}
        least |= {name: low for name, low in optional.items() if getattr(self, name) is not None}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise ProbesError(f"{name}={value!r} cannot be used; give a number from {low} on")
        if not self.max_learning_rate > 0 or not self.weight_decay >= 0:
            raise ProbesError(
                f"max_learning_rate={self.max_learning_rate} and weight_decay={self.weight_decay} "
                "were given; the first must be above 0, the second at least 0"
            )
        if self.samples_per_epoch is not None and self.sampling == "each-once":
            raise ProbesError(
                f"samples_per_epoch={self.samples_per_epoch} goes with sampling='slide-class'; an "
                "epoch of 'each-once' is the training part"
            )

    def _check_choices(self):
        choices = {
            "augmentation": AUGMENTATIONS,
            "sampling": SAMPLINGS,
            "optimiser": OPTIMISERS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ProbesError(f"{name}={getattr(self, name)!r}; give {' or '.join(known)}")
        if re.fullmatch(TRAINABLE, self.trainable) is None:
            raise ProbesError(
                f"trainable={self.trainable!r}; give 'all', 'head', 'last-2-blocks' or 'lora-8'"
            )

    @property
    def source_px(self):
        """How large to cut patches for it, in pixels, so that no turn or shift lacks margin.

        Examples
        --------
        >>> Recipe().source_px, Recipe(sampling="slide-class").source_px
        (318, 364)
        """
        if self.augmentation == "none" and self.sampling == "each-once":
            return self.patch_px
        turned_px = self.patch_px if self.augmentation == "none" else source_px(self.patch_px)
        return turned_px + 2 * self.jitter_px + 2 * (self.jitter_px > 0)

    @property
    def jitter_px(self):
        """How far the centre may move, in pixels to each side."""
        return round(JITTER_SHARE * self.patch_px) if self.sampling == "slide-class" else 0

    def resolved(self, *, download=False, device="auto"):
        """Find the weights and settle the precision, as ``train`` does before anything else.

        Parameters
        ----------
        download
            Fetch weights that are not on this machine.
        device
            Where it is to be trained, which decides what precision ``"auto"`` is.

        Returns
        -------
        Recipe
            Whose digest says what is trained.

        Raises
        ------
        WeightsError
            If the weights are not here.
        """
        path = find_weights(self.network, self.pretrained, download=download)
        return dataclasses.replace(
            self,
            weights="random" if path is None else f"sha256:{file_digest(path)}",
            precision=checked_precision(self.precision, device),
        )

    @property
    def digest(self):
        """SHA-256 over every field but where the weights lie and the preset's name."""
        decisive = dataclasses.asdict(self)
        del decisive["name"], decisive["pretrained"]
        canonical = json.dumps(decisive, sort_keys=True)
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def text(self):
        """The recipe in one line: network, preset, what differs from it, digest.

        Examples
        --------
        >>> preset("ganz2024", epochs=2, pretrained=None).resolved().text.rpartition(":")[0]
        'end-to-end timm:resnet50 ganz2024 weights=random epochs=2 sha256'
        """
        differing = [f"{name}={value}" for name, value in self._changes().items()]
        digest = self.digest[: len("sha256:") + DIGITS]
        return " ".join(["end-to-end", self.network, self.name or "own", *differing, digest])

    def _changes(self):
        """Fields that differ from the preset; weights from a file are in the digest alone."""
        mine, base = (
            dataclasses.asdict(recipe) for recipe in (self, PRESETS.get(self.name, Recipe()))
        )
        unlisted = {"name", "network", "pretrained"}
        unlisted |= set() if self.weights == "random" else {"weights"}
        return {
            name: value
            for name, value in mine.items()
            if name not in unlisted and value != base[name]
        }


# Ganz et al., section 3; optimiser, batch and number of epochs, of which the paper says nothing,
# are those of their later code.
PRESETS = {"ganz2024": Recipe(name="ganz2024", pretrained="imagenet")}


def preset(name, **changes):
    """Return a recipe by name, with some fields replaced.

    Raises
    ------
    ProbesError
        If there is no such preset or field.

    Examples
    --------
    >>> preset("ganz2024", epochs=5).max_learning_rate
    0.0001
    """
    if name not in PRESETS:
        raise ProbesError(f"no preset {name!r}; there is {', '.join(PRESETS)}")
    return changed(PRESETS[name], **changes)


def changed(recipe, **changes):
    """Replace fields of a recipe.

    Raises
    ------
    ProbesError
        If a field is not known.
    """
    known = [field.name for field in dataclasses.fields(Recipe) if field.name != "weights"]
    unknown = sorted(changes.keys() - set(known))
    if unknown:
        raise ProbesError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(known)}")
    return dataclasses.replace(recipe, **({"weights": ""} if changes else {}) | changes)
