"""The network: built from timm without a hub, normalising its own input, frozen where asked.

Shape suffixes: N patches, H height, W width, C channels (3).
"""

import re

import timm
import torch
from timm.models import group_parameters

from probes.endtoend.devices import one_line
from probes.endtoend.weights import read_weights, timm_name
from probes.errors import ProbesError, WeightsError, require

__all__ = ["Classifier", "build", "build_arguments"]

ATTENTION = r".*\.attn\.(qkv|proj|q_proj|k_proj|v_proj)"  # what LoRA adapts, in timm's names


def build_arguments(network, patch_px):
    """Return what ``timm.create_model`` needs beside name and number of classes.

    Examples
    --------
    >>> build_arguments("timm:vit_tiny_patch16_224", 64), build_arguments("timm:resnet50", 64)
    ({'img_size': 64}, {})
    """
    listed = timm.get_pretrained_cfg(timm_name(network))
    for_one_size = listed is not None and listed.fixed_input_size
    return {"img_size": patch_px} if for_one_size else {}


class Classifier(torch.nn.Module):
    """A timm network with one logit per class, fed with uint8 pixels.

    Mean and standard deviation travel with the module, so pixels travel to the device as uint8 and
    a network is never used with another normalisation. They are those that timm lists for the
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
        If timm has no such network, or cannot build it for that size.
    """

    def __init__(self, network: str, *, n_classes: int, patch_px: int):
        super().__init__()
        name, arguments = timm_name(network), build_arguments(network, patch_px)
        try:
            self.network = timm.create_model(
                name, pretrained=False, num_classes=n_classes, **arguments
            )
        except Exception as error:  # of any architecture, about the size
            raise ProbesError(
                f"{network} cannot be built for patch_px={patch_px} ({one_line(error)}); "
                "give a patch_px that it takes"
            ) from error
        listed = self.network.pretrained_cfg
        self.mean, self.std = tuple(listed["mean"]), tuple(listed["std"])
        heads = listed["classifier"]
        self.heads = (heads,) if isinstance(heads, str) else tuple(heads)
        mean_C11, std_C11 = (torch.tensor(v).reshape(3, 1, 1) for v in (self.mean, self.std))
        self.register_buffer("mean_C11", mean_C11, persistent=False)
        self.register_buffer("std_C11", std_C11, persistent=False)

    def forward(self, pixels_NHWC):
        """Return logits (n, classes) of uint8 pixels (n, px, px, 3)."""
        pixels_NCHW = pixels_NHWC.permute(0, 3, 1, 2).to(self.mean_C11.dtype) / 255
        return self.network((pixels_NCHW - self.mean_C11) / self.std_C11)

    def train(self, mode=True):
        """Enter training mode; what is frozen stays in evaluation mode.

        A frozen batch norm would otherwise go on learning its running means, and frozen layers
        would drop units.
        """
        super().train(mode)
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def start_from(self, path) -> None:
        """Load a checkpoint file; the classification layer stays random.

        Parameters
        ----------
        path
            A safetensors file, or a torch file that holds weights only.

        Raises
        ------
        WeightsError
            If the file holds other weights than the network has.
        """
        weights = _without(read_weights(path, self.network), self._head_keys())
        try:
            loaded = self.network.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise WeightsError(f"{path} does not fit the network: {one_line(error)}") from error
        missing = sorted(set(loaded.missing_keys) - self._head_keys())
        if missing or loaded.unexpected_keys:
            raise WeightsError(
                f"{path} is of another network: it lacks {len(missing)} tensors {missing[:3]} and "
                f"has {len(loaded.unexpected_keys)} others {loaded.unexpected_keys[:3]}; "
                "give a checkpoint in timm's key names"
            )

    def set_trainable(self, trainable) -> None:
        """Freeze what a recipe does not train, or put low-rank adapters on what it does not.

        Parameters
        ----------
        trainable
            As a :class:`probes.endtoend.Recipe` has it.

        Raises
        ------
        ProbesError
            If the network has fewer blocks, or no attention to adapt.
        MissingExtraError
            For LoRA without ``peft``.
        """
        if trainable == "all":
            return
        rank = re.fullmatch(r"lora-(\d+)", trainable)
        last = re.fullmatch(r"last-(\d+)-blocks", trainable)
        if rank:
            self._adapt(int(rank[1]))
            return
        trained = self._head_keys() | (self._last_keys(int(last[1])) if last else set())
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in trained)

    def merge_adapters(self) -> None:
        """Add what low-rank adapters learned to the weights, so that the network is timm's own."""
        if hasattr(self.network, "merge_and_unload"):
            self.network = self.network.merge_and_unload()

    def _adapt(self, rank):
        peft = require("peft", extra="lora", purpose="trainable='lora-...'")
        adapted = [
            name for name, _ in self.network.named_modules() if re.fullmatch(ATTENTION, name)
        ]
        if not adapted:
            raise ProbesError(
                f"trainable='lora-{rank}' adapts the attention of transformers, and this network "
                "has none; give 'last-2-blocks'"
            )
        head = self._head_keys()
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=adapted)
        self.network = peft.get_peft_model(self.network, config)
        for name, parameter in self.network.get_base_model().named_parameters():
            if name in head:
                parameter.requires_grad_(True)

    def _last_keys(self, n_blocks):
        """Name the parameters of the last blocks, as timm groups them, and of what follows."""
        groups = group_parameters(self.network, self.network.group_matcher(coarse=False))
        shapes = dict(self.network.named_parameters())
        heads = self._head_keys()
        blocks = [
            number
            for number, names in sorted(groups.items())
            if any(shapes[name].ndim > 1 and name not in heads for name in names)
        ]
        if n_blocks >= len(blocks):
            raise ProbesError(
                f"trainable='last-{n_blocks}-blocks' and the network has {len(blocks)}; "
                "give 'all' or fewer"
            )
        first = blocks[-n_blocks]
        return {name for number, names in groups.items() if number >= first for name in names}

    def _head_keys(self):
        """Name the tensors of the classification layer."""
        starts = tuple(f"{head}." for head in self.heads)
        return {key for key in self.network.state_dict() if key.startswith(starts)}


def build(recipe, n_classes, weights=None):
    """Build the network as a training with this recipe starts with it.

    Parameters
    ----------
    recipe : Recipe
        Its seed decides what is random.
    n_classes
        At least 2.
    weights
        File to start from; None for random weights.

    Returns
    -------
    Classifier
    """
    torch.manual_seed(recipe.seed)
    classifier = Classifier(recipe.network, n_classes=n_classes, patch_px=recipe.patch_px)
    if weights is not None:
        classifier.start_from(weights)
    classifier.set_trainable(recipe.trainable)
    _try_on_a_patch(classifier, recipe)
    return classifier


def _try_on_a_patch(classifier, recipe):
    """Refuse a size of input that the network turns out not to take, before any pixel is read."""
    blank_NHWC = torch.zeros((1, recipe.patch_px, recipe.patch_px, 3), dtype=torch.uint8)
    try:
        with torch.inference_mode():
            classifier.eval()(blank_NHWC)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ProbesError(
            f"{recipe.network} takes no input of patch_px={recipe.patch_px} ({one_line(error)}); "
            "give another size"
        ) from error


def _without(weights, keys):
    return {key: tensor for key, tensor in weights.items() if key not in keys}
