"""The network: built from timm without a hub, normalising its own input, kept as safetensors.

Shape suffixes: N patches, H height, W width, C channels (3), K classes.
"""

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import timm
import torch
from safetensors.torch import load_file, save_file

from probes.endtoend.augment import centre_crop
from probes.errors import ProbesError

__all__ = ["Classifier", "Recipe", "TrainedNetwork", "torch_device"]

FORMAT = "featstore-probes/endtoend"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """All that decided a training, apart from the pixels and labels.

    ``batch_size`` is the one used, which is at most the number of training annotations;
    ``pretrained`` the checkpoint file the weights started from, or None for random ones.
    """

    network: str
    patch_px: int
    epochs: int
    batch_size: int
    max_learning_rate: float
    weight_decay: float
    seed: int
    augmented: bool
    pretrained: str | None
    n_train: int
    n_val: int


class Classifier(torch.nn.Module):
    """A timm network with one logit per class, fed with uint8 pixels.

    Mean and standard deviation are buffers, so pixels travel to the device as uint8 and a saved
    network cannot be used with another normalisation. They are those that timm lists for the
    network, ImageNet's where it lists none.

    Parameters
    ----------
    network
        ``"timm:NAME"``.
    n_classes
        Number of logits.
    patch_px
        Side of the input in pixels; transformers are built for it.

    Raises
    ------
    ProbesError
        If timm has no such network.
    """

    def __init__(self, network: str, *, n_classes: int, patch_px: int):
        super().__init__()
        name = _timm_name(network)
        size = {"img_size": patch_px} if _is_built_for_one_size(name) else {}
        self.network = timm.create_model(name, pretrained=False, num_classes=n_classes, **size)
        mean, std = self.network.pretrained_cfg["mean"], self.network.pretrained_cfg["std"]
        self.register_buffer("mean_C11", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std_C11", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, pixels_NHWC):
        """Return logits (n, classes) of uint8 pixels (n, px, px, 3)."""
        pixels_NCHW = pixels_NHWC.permute(0, 3, 1, 2).to(self.mean_C11.dtype) / 255
        return self.network((pixels_NCHW - self.mean_C11) / self.std_C11)

    def start_from(self, path) -> None:
        """Load a checkpoint file in timm's key names; the classification layer stays random.

        Parameters
        ----------
        path
            A safetensors file, or a torch file that holds weights only.

        Raises
        ------
        ProbesError
            If the file is not there or holds other weights than the network has.
        """
        weights = _without(_read_checkpoint(path), self._head_keys())
        try:
            loaded = self.network.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise ProbesError(f"{path} does not fit the network: {_one_line(error)}") from error
        missing = sorted(set(loaded.missing_keys) - self._head_keys())
        if missing or loaded.unexpected_keys:
            raise ProbesError(
                f"{path} is of another network: it lacks {len(missing)} tensors {missing[:3]} and "
                f"has {len(loaded.unexpected_keys)} others {loaded.unexpected_keys[:3]}; "
                "give a checkpoint in timm's key names"
            )

    def _head_keys(self):
        """Name the tensors of the classification layer."""
        heads = self.network.pretrained_cfg["classifier"]
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        return {key for key in self.network.state_dict() if key.startswith(heads)}


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network after training, with the weights of its best epoch.

    Attributes
    ----------
    recipe : Recipe
        What it was trained with.
    classes_ : numpy.ndarray
        The classes, sorted; column i of ``predict_proba`` is ``classes_[i]``.
    history : list of dict
        One per epoch: ``epoch`` (from 1), ``train_loss``, ``val_loss`` (None where the split has no
        validation part) and ``best`` (True for the epoch whose weights are kept).
    classifier : Classifier
        The torch module, in evaluation mode.
    device : torch.device
        Where ``predict_proba`` computes.
    """

    recipe: Recipe
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
        """Compute the probability of each class.

        Parameters
        ----------
        pixels
            uint8 (n, px, px, 3); the centre of ``recipe.patch_px`` is used.
        batch_size
            Patches computed at once.

        Returns
        -------
        numpy.ndarray
            float64 (n, classes), each row summing to 1.

        Raises
        ------
        ProbesError
            If the patches are not uint8 (n, px, px, 3) or are smaller than ``recipe.patch_px``.
        """
        cropped_NHWC = centre_crop(checked_pixels(pixels), self.recipe.patch_px)
        self.classifier.to(self.device).eval()
        starts = range(0, len(cropped_NHWC), batch_size)
        parts = [self._proba(cropped_NHWC[start : start + batch_size]) for start in starts]
        return np.concatenate([np.empty((0, len(self.classes_))), *parts])

    @torch.inference_mode()
    def _proba(self, pixels_NHWC):
        copied_NHWC = torch.tensor(np.ascontiguousarray(pixels_NHWC), device=self.device)
        logits_NK = self.classifier(copied_NHWC).cpu().double()
        return logits_NK.softmax(dim=1).numpy()

    def save(self, path) -> None:
        """Write weights, recipe, classes and history to one safetensors file."""
        about = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "recipe": dataclasses.asdict(self.recipe),
            "classes": self.classes_.tolist(),
            "history": self.history,
        }
        weights = self.classifier.state_dict()
        weights = {key: tensor.cpu().contiguous() for key, tensor in weights.items()}
        save_file(weights, path, metadata={"about": json.dumps(about)})

    @classmethod
    def load(cls, path, *, device: str = "auto") -> "TrainedNetwork":
        """Read what ``save`` wrote.

        Raises
        ------
        ProbesError
            If the file is not there or is not one of ours.
        """
        about = _read_about(path)
        recipe = Recipe(**about["recipe"])
        classes = np.array(about["classes"])
        classifier = Classifier(recipe.network, n_classes=len(classes), patch_px=recipe.patch_px)
        classifier.load_state_dict(load_file(path))
        return cls(recipe, classes, about["history"], classifier.eval(), torch_device(device))


def torch_device(device: str) -> torch.device:
    """Choose the device: ``"auto"`` is the first GPU where there is one, else the CPU.

    Raises
    ------
    ProbesError
        If the device is not known or not there.

    Examples
    --------
    >>> torch_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else _mps_or_cpu()
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        raise ProbesError(
            f"device={device!r} cannot be used ({_one_line(error)}); "
            "give 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
        ) from error


def checked_pixels(pixels) -> np.ndarray:
    """Return the pixels as they are, or refuse what is not uint8 (n, px, px, 3)."""
    pixels = np.asarray(pixels)
    square = pixels.ndim == 4 and pixels.shape[1] == pixels.shape[2] and pixels.shape[3] == 3
    if pixels.dtype != np.uint8 or not square:
        raise ProbesError(
            f"patches are {pixels.dtype} {pixels.shape}; give square RGB patches, "
            "uint8 (n, px, px, 3)"
        )
    return pixels


def _mps_or_cpu():
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _timm_name(network):
    """Take the name out of ``"timm:NAME"`` where timm has such a network."""
    source, _, name = network.partition(":")
    if source == "timm" and name in _timm_names():
        return name
    known = [f"timm:{known}" for known in _timm_names()]
    close = difflib.get_close_matches(network, known) or ["timm:resnet50"]
    raise ProbesError(f"no network {network!r}; give 'timm:NAME', such as {', '.join(close)}")


def _timm_names():
    """List every network of timm, with and without the tag that names its published weights."""
    return {*timm.list_models(), *timm.list_pretrained()}


def _is_built_for_one_size(name):
    """Whether the weights' shapes depend on the size of the input, as in most transformers."""
    listed = timm.get_pretrained_cfg(name)
    return listed is not None and listed.fixed_input_size


def _read_checkpoint(path):
    """Read weights from a file, safetensors or torch, without unpickling any code."""
    if not Path(path).is_file():
        raise ProbesError(f"no checkpoint file {path}; pretrained= takes a local file or None")
    try:
        return timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:
        raise ProbesError(
            f"{path} cannot be read as weights ({_one_line(error)}); "
            "give a safetensors file or a torch file of weights only"
        ) from error


def _read_about(path):
    """Read the description beside the weights, or say that the file is not one of ours."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
    except (OSError, safetensors.SafetensorError) as error:
        raise ProbesError(f"cannot read {path} ({_one_line(error)})") from error
    if (about.get("format"), about.get("version")) != (FORMAT, FORMAT_VERSION):
        raise ProbesError(
            f"{path} is {about.get('format')!r} version {about.get('version')!r}, not a network "
            f"saved here ({FORMAT!r} version {FORMAT_VERSION}); give a file TrainedNetwork.save "
            "wrote"
        )
    return about


def _without(weights, keys):
    return {key: tensor for key, tensor in weights.items() if key not in keys}


def _one_line(error):
    """Put an error's message on one line, short enough to read."""
    return " ".join(str(error).split())[:200]
