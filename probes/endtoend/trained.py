"""A network after training: what it predicts, and the file it is kept in.

The file is safetensors with timm's own tensor names, so timm loads it as a checkpoint; what else
there is to know is JSON in its metadata.

Shape suffixes: N patches, H height, W width, C channels (3), K classes.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from probes.endtoend.augment import centre_crop
from probes.endtoend.devices import one_line, torch_device
from probes.endtoend.network import Classifier, build_arguments
from probes.endtoend.pixels import checked_pixels
from probes.endtoend.recipe import Recipe
from probes.endtoend.weights import timm_name
from probes.errors import ProbesError

__all__ = ["TrainedNetwork", "Training"]

FORMAT = "featstore-probes/endtoend"
FORMAT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a network was trained on: numbers and digests, never IDs.

    Parameters
    ----------
    split
        Digest of the split.
    dataset, dataset_digest
        Name and digest of the annotations, '' where these have none.
    mpp
        Um per pixel of the patches, None where the source does not say.
    n_train, n_val
        Annotations of the two parts.
    """

    split: str
    dataset: str = ""
    dataset_digest: str = ""
    mpp: float | None = None
    n_train: int
    n_val: int


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network after training, with the weights of its best epoch.

    Attributes
    ----------
    recipe : Recipe
        How it was trained.
    training : Training
        On what.
    classes_ : numpy.ndarray
        The classes, sorted; column i of ``predict_proba`` is ``classes_[i]``.
    history : list of dict
        One per epoch: ``epoch`` (from 1), ``train_loss``, ``val_loss`` (None where the split has no
        validation part), ``learning_rate`` and ``best`` (True for the epoch whose weights are
        kept).
    classifier : Classifier
        The torch module, in evaluation mode.
    device : torch.device
        Where ``predict_proba`` computes.
    """

    recipe: Recipe
    training: Training
    classes_: np.ndarray
    history: list
    classifier: torch.nn.Module = field(repr=False)
    device: torch.device

    @property
    def network(self) -> str:
        """The network's name, as it was asked for."""
        return self.recipe.network

    @property
    def best_epoch_(self) -> int:
        """The epoch whose weights are kept, counted from 1."""
        return next(row["epoch"] for row in self.history if row["best"])

    def predict_proba(self, pixels, *, batch_size: int = 64) -> np.ndarray:
        """Compute the probability of each class, in float32.

        Parameters
        ----------
        pixels
            uint8 (n, px, px, 3); the centre of ``recipe.patch_px`` is used.
        batch_size
            Patches computed at once.

        Returns
        -------
        numpy.ndarray
            float64 (n, classes), each row summing to 1. The same for the same pixels and batch
            size; on a GPU with algorithms that are deterministic.

        Raises
        ------
        ProbesError
            If the patches are not uint8 (n, px, px, 3) or are smaller than ``recipe.patch_px``.
        """
        cropped_NHWC = centre_crop(checked_pixels(pixels), self.recipe.patch_px)
        self.classifier.to(self.device).eval()
        starts = range(0, len(cropped_NHWC), batch_size)
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True):
            parts = [self._proba(cropped_NHWC[start : start + batch_size]) for start in starts]
        return np.concatenate([np.empty((0, len(self.classes_))), *parts])

    @torch.inference_mode()
    def _proba(self, pixels_NHWC):
        copied_NHWC = torch.tensor(np.ascontiguousarray(pixels_NHWC), device=self.device)
        logits_NK = self.classifier(copied_NHWC).cpu().double()
        return logits_NK.softmax(dim=1).numpy()

    def save(self, path) -> None:
        """Write weights, recipe, classes and history to one safetensors file.

        A file of that name is replaced only once the new one is whole.
        """
        weights = self.classifier.network.state_dict()
        # Copies: some networks tie weights, and safetensors refuses tensors that share memory.
        weights = {key: tensor.cpu().clone().contiguous() for key, tensor in weights.items()}
        partial = f"{os.fspath(path)}.partial"
        save_file(weights, partial, metadata={"about": json.dumps(self._about())})
        os.replace(partial, path)

    def _about(self):
        recipe, classifier = self.recipe, self.classifier
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "architecture": timm_name(recipe.network),
            "arguments": build_arguments(recipe.network, recipe.patch_px),
            "classifier": list(classifier.heads),
            "input_px": recipe.patch_px,
            "mean": list(classifier.mean),
            "std": list(classifier.std),
            "classes": self.classes_.tolist(),
            "recipe": dataclasses.asdict(recipe),
            "recipe_text": recipe.text,
            "history": self.history,
            **dataclasses.asdict(self.training),
        }

    @classmethod
    def load(cls, path, *, device: str = "auto") -> "TrainedNetwork":
        """Read what ``save`` wrote.

        Raises
        ------
        ProbesError
            If the file is not there or is not one of ours.
        """
        about = _read_about(path)
        try:
            recipe = Recipe(**about["recipe"])
            names = [known.name for known in dataclasses.fields(Training)]
            training = Training(**{name: about[name] for name in names})
            classes = np.array(about["classes"])
            built = _built(recipe, len(classes), load_file(path))
            history = [row | {"best": bool(row["best"])} for row in about["history"]]
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise ProbesError(f"{path} is damaged: {one_line(error)}") from error
        return cls(recipe, training, classes, history, built.eval(), torch_device(device))


def _built(recipe, n_classes, weights):
    """Build a network with its weights, once these are known to be all of them."""
    size = {"n_classes": n_classes, "patch_px": recipe.patch_px}
    with torch.device("meta"):  # takes no memory, whatever network a file from anyone names
        Classifier(recipe.network, **size).network.load_state_dict(weights, assign=True)
    built = Classifier(recipe.network, **size)
    built.network.load_state_dict(weights)
    return built


def _read_about(path):
    """Read the description beside the weights, or say that the file is not one of ours."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise ProbesError(f"cannot read {path} ({one_line(error)})") from error
    about = about if isinstance(about, dict) else {}
    if (about.get("format"), about.get("version")) != (FORMAT, FORMAT_VERSION):
        raise ProbesError(
            f"{path} is {about.get('format')!r} version {about.get('version')!r}, not a network "
            f"saved here ({FORMAT!r} version {FORMAT_VERSION}); give a file TrainedNetwork.save "
            "wrote"
        )
    return about
