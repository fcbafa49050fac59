"""Checkpoints, which come from anywhere: tensors by name, read without running code.

Safetensors, or torch files with ``weights_only=True``. The names of original releases are brought
into those of timm, and what then does not fit the network to the last tensor is refused.
"""

import hashlib
import re

from featstore.errors import EncoderError, require

torch = require("torch", extra="extract", purpose="building encoders")
timm = require("timm", extra="extract", purpose="building encoders")

__all__ = ["check_fit", "load_weights", "read_checkpoint", "renamed"]


def read_checkpoint(path):
    """Read a checkpoint.

    Parameters
    ----------
    path : pathlib.Path
        Safetensors by its ending, else what ``torch.save`` wrote.

    Returns
    -------
    tensors : dict of str to torch.Tensor
        On the CPU.
    digest : str
        SHA-256 of the file.

    Raises
    ------
    EncoderError
        If it is missing, damaged, or holds anything beside tensors.
    """
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        tensors = _tensors_in(path)
        for name, tensor in tensors.items():
            _check_plain(name, tensor, path)
        return tensors, digest
    except OSError as error:
        raise EncoderError(f"cannot read the weights {path}: {error.strerror}") from error
    except EncoderError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise EncoderError(f"{path} is not a checkpoint of tensors only: {reason}") from error


def _tensors_in(path):
    if path.suffix == ".safetensors":
        import safetensors.torch

        return safetensors.torch.load_file(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in ("state_dict", "model"):
        loaded = loaded.get(wrapper, loaded) if isinstance(loaded, dict) else loaded
    named = isinstance(loaded, dict) and all(isinstance(name, str) for name in loaded)
    if not named or not all(map(torch.is_tensor, loaded.values())):
        raise EncoderError(f"{path} holds no state dict; give a file of named tensors")
    return loaded


def _check_plain(name, tensor, path):
    """Refuse a tensor that is not numbers in memory, one by one."""
    plain = tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized)
    plain = plain and tensor.device.type == "cpu" and not tensor.is_complex()
    if plain and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes():
        return
    raise EncoderError(
        f"{name!r} in {path} is no plain tensor of real numbers ({tensor.dtype}, {tensor.layout}); "
        "save the state dict as torch.save or safetensors do by default"
    )


def renamed(tensors, spec):
    """Return tensors under timm's names where they have those of an original release."""
    if spec.key == "efficientnet-lite0":
        return _renamed_by_order(tensors, spec)
    if any(".attention.attention.query." in name for name in tensors):
        return _renamed_from_transformers(tensors)
    return tensors


# A ViT of the library transformers, as Phikon is released, and of timm.
TRANSFORMERS_VIT = (
    (r"^vit\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
)


def _renamed_from_transformers(tensors):
    """Rename, and put query, key and value, which timm keeps as one, above each other."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.removeprefix("vit.").startswith("pooler."):
            continue  # a layer behind the class token that no linear probe uses
        for pattern, replacement in TRANSFORMERS_VIT:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        names = [name.replace("query", part) for part in ("query", "key", "value")]
        parts = [renamed.pop(each) for each in names if each in renamed]
        if len({part.shape[1:] for part in parts}) > 1:
            raise EncoderError(f"{name!r} and its key and value have different shapes")
        renamed[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    return renamed


def _renamed_by_order(tensors, spec):
    """Give tensors the names of timm's model, which stand in the same order."""
    with torch.device("meta"):
        whole = timm.create_model(spec.architecture, pretrained=False, **spec.build).state_dict()
    shapes = [tuple(tensor.shape) for tensor in tensors.values()]
    if shapes != [tuple(tensor.shape) for tensor in whole.values()]:
        raise EncoderError(
            f"the {len(shapes)} tensors of {spec.key!r} are not those of {spec.architecture}"
        )
    return dict(zip(whole, tensors.values(), strict=True))


def load_weights(network, tensors, path):
    """Load all weights of a network; only a classifier may be left over.

    Raises
    ------
    EncoderError
        Naming tensors that are missing, left over or of another shape.
    """
    kept = check_fit(network, tensors, path)
    try:
        network.load_state_dict(kept)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise EncoderError(f"{path} cannot be loaded: {reason}") from error


def check_fit(network, tensors, path):
    """Return the tensors that a network takes, apart from a classifier's; errors as above.

    The network may be on the device ``meta``, where it takes no memory.
    """
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    kept = {k: v for k, v in tensors.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    wanted = network.state_dict()
    missing, unexpected = sorted(wanted.keys() - kept.keys()), sorted(kept.keys() - wanted.keys())
    misshapen = sorted(k for k in wanted.keys() & kept.keys() if wanted[k].shape != kept[k].shape)
    if missing or unexpected or misshapen:
        raise EncoderError(
            f"{path} does not fit {type(network).__name__}: {len(missing)} tensors are missing "
            f"({_some(missing)}), {len(unexpected)} unexpected ({_some(unexpected)}), "
            f"{len(misshapen)} of another shape ({_some(misshapen)})"
        )
    return kept


def _some(names):
    return ", ".join(names[:3]) or "none"
