"""Build an encoder exactly as its specification says, or not at all.

Weights come from a file, from an installed package, from the hub's cache, or at random by a stated
seed. No hub is ever asked. Checkpoints are read without running code: safetensors, or torch with
``weights_only=True``.
"""

import hashlib
import re
from pathlib import Path

from featstore.encoders import registry
from featstore.encoders.pooling import default_pooling, embedding_parts, pool
from featstore.encoders.spec import EncoderSpec
from featstore.encoders.weights import find_weights
from featstore.errors import EncoderError, require

torch = require("torch", extra="extract", purpose="building encoders")
timm = require("timm", extra="extract", purpose="building encoders")

__all__ = ["Encoder", "bare_network", "build"]

# What a registry of plain values calls by name.
LAYERS = {"SwiGLUPacked": timm.layers.SwiGLUPacked, "SiLU": torch.nn.SiLU}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Encoder(torch.nn.Module):
    """A network with its normalisation and pooling: uint8 patches in, embeddings out.

    Parameters
    ----------
    spec : EncoderSpec
        What was built; ``dim`` and ``weights`` are filled in.
    network : torch.nn.Module
        A timm network with its weights.

    Examples
    --------
    >>> import numpy as np
    >>> encoder = build("timm:test_vit", random_weights=0, pooling="class+mean")
    >>> encoder.embed(np.zeros((2, 160, 160, 3), np.uint8)).shape
    torch.Size([2, 128])
    """

    def __init__(self, spec, network):
        super().__init__()
        self.parts = embedding_parts(network, spec.pooling)
        self.spec = spec.at(dim=max(stop for _, stop in self.parts.values()))
        self.network = _in_best_layout(network.eval())
        self.register_buffer("mean", _per_channel(spec.mean), persistent=False)
        self.register_buffer("std", _per_channel(spec.std), persistent=False)

    @property
    def device(self):
        """Device of the weights."""
        return self.mean.device

    def forward(self, patches_NHWC):
        """Embed uint8 patches that are on the encoder's device; shape (N, dim), float32."""
        images_NCHW = patches_NHWC.permute(0, 3, 1, 2).float().div_(255)
        images_NCHW = images_NCHW.sub_(self.mean).div_(self.std)
        return pool(self.network, images_NCHW, self.spec.pooling)

    @torch.inference_mode()
    def embed(self, patches_NHWC):
        """Embed uint8 patches (N, input_px, input_px, 3) in the precision of the specification.

        Returns
        -------
        torch.Tensor of shape (N, dim), float32, on the encoder's device
        """
        patches = torch.as_tensor(patches_NHWC).to(self.device, non_blocking=True)
        dtype = PRECISIONS[self.spec.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self(patches).float()


def build(
    model,
    *,
    weights=None,
    allow_other_weights=False,
    random_weights=None,
    pooling=None,
    mpp=0.25,
    precision="float32",
    device="cpu",
    key=None,
):
    """Build an encoder by name.

    Parameters
    ----------
    model : str
        A name of the registry, or ``timm:NAME``.
    weights : path-like, optional
        Checkpoint: safetensors, or a torch file that holds tensors only. By default what an
        installed package or the hub's cache holds.
    allow_other_weights : bool
        Take a file whose SHA-256 is not the registry's, which is then recorded.
    random_weights : int, optional
        Seed of random weights. For comparisons and tests; marked in every result.
    pooling : str, optional
        In place of the registry's: 'average', 'class', 'mean' or 'class+mean'.
    mpp : float or None
        Um per pixel that patches are cut at; None for whole patch files.
    precision : {'float32', 'bfloat16', 'float16'}
        Autocast type of the forward pass.
    device : str
        A torch device.
    key : str, optional
        Name in stores; by default the model's, with the seed where weights are random.

    Returns
    -------
    Encoder

    Raises
    ------
    EncoderError
        If the name is unknown, no weights can be had, or they do not fit the network.

    Examples
    --------
    >>> build("timm:test_vit", random_weights=3).spec.key
    'test_vit-random3'
    """
    spec = _specification(model)
    if weights is not None and random_weights is not None:
        raise EncoderError(
            "weights from a file and random weights were asked for; give one of them"
        )
    if precision not in PRECISIONS:
        raise EncoderError(f"precision {precision!r} is unknown; take {', '.join(PRECISIONS)}")
    if random_weights is not None:
        network = _random_network(spec, random_weights)
        spec = spec.at(weights=f"random:{random_weights}", weights_from="random", terms="")
    else:
        path = Path(weights) if weights is not None else _weights_here(model, spec)
        network, spec = _network_with_weights(model, spec, path, allow_other_weights)
    spec = spec.at(
        key=_key(key or spec.key, spec),
        pooling=pooling or spec.pooling or default_pooling(network),
        mpp=mpp,
        precision=precision,
    )
    return Encoder(spec, network).to(_checked_device(device))


def _specification(model):
    if not model.startswith(registry.TIMM_PREFIX):
        return registry.named(model)
    name = model.removeprefix(registry.TIMM_PREFIX)
    if not timm.is_model(name):
        near = (
            ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        )
        raise EncoderError(f"timm {timm.__version__} has no model {name!r}; near it: {near}")
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) or timm.models.PretrainedCfg()
    return EncoderSpec(
        key=name.lower(),
        architecture=name,
        input_px=config.input_size[-1],
        mean=tuple(config.mean),
        std=tuple(config.std),
        pooling="",
        terms=config.license or "",
    )


def _key(key, spec):
    """Name in stores, in which random weights show."""
    mark = spec.weights.replace(":", "")
    return f"{key}-{mark}" if spec.random and mark not in key else key


def bare_network(spec):
    """Build the network of a specification, without weights and without a classifier."""
    arguments = {
        key: LAYERS.get(value, value) if isinstance(value, str) else value
        for key, value in spec.build.items()
    }
    return timm.create_model(spec.architecture, pretrained=False, num_classes=0, **arguments)


def _random_network(spec, seed):
    """Build with random weights, leaving the caller's random state as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return bare_network(spec)


def _weights_here(model, spec):
    found = None if model.startswith(registry.TIMM_PREFIX) else find_weights(_row(model))
    if found is None:
        source = f" ({spec.weights_from})" if spec.weights_from else ""
        raise EncoderError(
            f"no weights of {spec.key!r} on this machine; give a checkpoint with --weights FILE"
            f"{source}, or --random-weights SEED"
        )
    return found[0]


def _row(model):
    return registry.registered(model)


def _network_with_weights(model, spec, path, allow_other):
    """Build a network with the weights of a file, and the specification that names them."""
    tensors, digest = _read_checkpoint(path)
    row = None if model.startswith(registry.TIMM_PREFIX) else _row(model)
    is_other = row is not None and not digest.startswith(row.sha256)
    if is_other and not allow_other:
        raise EncoderError(
            f"{path} has the SHA-256 {digest[:16]}..., the registry has {row.sha256[:16]}... for "
            f"{spec.key!r}; pass --allow-other-weights and a --name of its own, or get the "
            "registered file"
        )
    network = bare_network(spec)
    _load(network, _renamed(tensors, spec), path)
    source = "file" if row is None or not is_other else "file other than the registered one,"
    return network, spec.at(weights=digest, weights_from=f"{source} {path.name}")


def _read_checkpoint(path):
    """Tensors by name, and the file's SHA-256, of a checkpoint that cannot run code."""
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load(content), digest
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise EncoderError(f"cannot read the weights {path}: {error.strerror}") from error
    except Exception as error:  # torch and safetensors raise many kinds for damaged files
        reason = str(error).splitlines()[0]
        raise EncoderError(f"{path} is not a checkpoint of tensors only: {reason}") from error
    for wrapper in ("state_dict", "model"):
        loaded = loaded.get(wrapper, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(map(torch.is_tensor, loaded.values())):
        raise EncoderError(f"{path} holds no state dict; give a file of named tensors")
    return loaded, digest


def _renamed(tensors, spec):
    """Bring the names of an original release into those of timm."""
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
        parts = [renamed.pop(name.replace("query", part)) for part in ("query", "key", "value")]
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


def _load(network, tensors, path):
    """Load all weights of a network; only a classifier may be left over."""
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
    network.load_state_dict(kept)


def _some(names):
    return ", ".join(names[:3]) or "none"


def _checked_device(device):
    try:
        chosen = torch.device(device)
        torch.empty(0, device="cpu" if chosen.type == "cuda" else chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderError(
            f"device {device!r} cannot be used ({reason}); use cpu or cuda"
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise EncoderError(
            f"device {device!r} was asked for and torch finds no CUDA; use --device cpu"
        )
    return chosen


def _in_best_layout(network):
    """Convolutional networks run 1.7 times as fast on a CPU with channels last; ViTs do not."""
    convolutional = not hasattr(network, "num_prefix_tokens")
    return network.to(memory_format=torch.channels_last) if convolutional else network


def _per_channel(values):
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
