"""The training and validation part of a split, checked: IDs, classes, codes, and what they are.

The test part is never looked at.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch

from probes.endtoend.pixels import checked_pixels
from probes.endtoend.sampling import EachOnce, SlideThenClass
from probes.endtoend.trained import Training
from probes.errors import OneClassError, ProbesError
from probes.protocols import positions

__all__ = ["Parts", "listed"]

FINGERPRINTED = 4  # patches that tell whether a source has the pixels that a checkpoint was of


def listed(ids, most=16):
    """Write IDs in a line, the first ones where they are many.

    Examples
    --------
    >>> listed([4, 7, 9], most=2)
    '4, 7 and 1 more'
    """
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(str(annotation) for annotation in ids[:most]) + more


@dataclass(frozen=True, eq=False)
class Parts:
    """What a network is trained and validated on.

    Parameters
    ----------
    train_ids, val_ids : ndarray
        Annotations.
    classes : ndarray of str
        Sorted; a code is a place among them.
    train_codes, val_codes : torch.Tensor of int64
        Each annotation's own label, whatever else lies in its patch.
    px : int
        Side of the source's patches.
    pixels_digest : str
        Of a few patches.
    training : Training
        What the trained network says of it.
    """

    train_ids: np.ndarray
    val_ids: np.ndarray
    classes: np.ndarray
    train_codes: torch.Tensor = field(repr=False)
    val_codes: torch.Tensor = field(repr=False)
    px: int
    pixels_digest: str
    training: Training

    @classmethod
    def of(cls, patches, annotations, split):
        """Look the parts of a split up.

        Raises
        ------
        OneClassError
            If the training part holds one class only.
        ProbesError
            If the validation part holds a class that training lacks, or patches are missing.
        """
        train_ids, val_ids = np.asarray(split.train), np.asarray(split.val)
        classes, train_codes, val_codes = _codes(annotations, train_ids, val_ids)
        _check_there(patches, np.concatenate([train_ids, val_ids]))
        px, pixels_digest = _fingerprint(patches, train_ids)
        mpp = getattr(patches, "mpp", None)
        training = Training(
            split=getattr(split, "digest", "") or _digest(train_ids, val_ids),
            dataset=str(getattr(annotations, "name", "")),
            dataset_digest=str(getattr(annotations, "digest", "")),
            mpp=None if mpp is None else float(mpp),
            n_train=len(train_ids),
            n_val=len(val_ids),
        )
        return cls(train_ids, val_ids, classes, train_codes, val_codes, px, pixels_digest, training)

    def identity(self, recipe):
        """Say what a training with this recipe is, as texts by name."""
        return {
            "recipe": f"{recipe.text} {recipe.digest}",
            "split": self.training.split,
            "annotations": _digest(self.train_ids, self.val_ids),
            "labels": _digest(self.classes, self.train_codes.numpy(), self.val_codes.numpy()),
            "patches": self.pixels_digest,
        }

    def sampling(self, recipe, annotations):
        """Return how the training part is drawn from.

        Raises
        ------
        ProbesError
            If slides are asked for and the annotations have none.
        """
        if recipe.sampling == "each-once":
            return EachOnce(len(self.train_ids))
        try:
            slides = np.asarray(annotations.column("slide"))
        except (AttributeError, KeyError, ValueError, LookupError) as error:
            raise ProbesError(
                "sampling='slide-class' needs the annotations' column 'slide', which is not there; "
                "give sampling='each-once'"
            ) from error
        rows = positions(np.asarray(annotations.ids), self.train_ids)
        return SlideThenClass(slides[rows], self.train_codes.numpy(), recipe.samples_per_epoch)


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


def _check_there(patches, ids):
    missing = np.setdiff1d(ids, np.asarray(patches.ids))
    if len(missing):
        raise ProbesError(
            f"the source has no patches of {len(missing)} of the split's {len(ids)} annotations: "
            f"{listed(missing)}; cut them, or give the split of this dataset"
        )


def _fingerprint(patches, ids):
    """Read a few patches: their side in pixels, and a digest of them."""
    places = np.unique(np.linspace(0, len(ids) - 1, FINGERPRINTED).astype(int))
    pixels = checked_pixels(patches.read(ids[places]))
    return pixels.shape[1], _digest(pixels)


def _digest(*arrays):
    state = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        text = "\n".join(array.astype(str).tolist()) if array.ndim == 1 else array.tobytes()
        state.update(f"{array.shape}".encode())
        state.update(text.encode() if isinstance(text, str) else text)
    return "sha256:" + state.hexdigest()
