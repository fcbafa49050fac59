"""Build an encoder exactly as its specification says, or not at all.

Weights come from a file, from an installed package, from the hub's cache, or at random by a stated
seed; a network that was trained end to end comes whole, out of its file. The hub is asked only
where that is said. Checkpoints are read without running code.
"""

import functools
from pathlib import Path

from featstore.encoders import registry
from featstore.encoders.checkpoint import check_fit, load_weights, read_checkpoint, renamed
from featstore.encoders.download import fetch_weights
from featstore.encoders.encoder import LONGEST_REASON, PRECISIONS, Encoder
from featstore.encoders.pooling import default_pooling, head_pooling
from featstore.encoders.spec import EncoderSpec
from featstore.encoders.trained import is_trained_file, read_trained
from featstore.encoders.weights import find_weights
from featstore.errors import EncoderError, require

torch = require("torch", extra="extract", purpose="building encoders")
timm = require("timm", extra="extract", purpose="building encoders")

__all__ = ["bare_network", "build", "checked_device"]

# What a registry of plain values calls by name.
LAYERS = {
    "SwiGLUPacked": timm.layers.SwiGLUPacked,
    "SiLU": torch.nn.SiLU,
    "LayerNorm-1e-12": functools.partial(torch.nn.LayerNorm, eps=1e-12),
}


def build(
    model,
    *,
    weights=None,
    download=False,
    allow_other_weights=False,
    random_weights=None,
    pooling=None,
    parts=None,
    mpp="own",
    precision="float32",
    device="cpu",
    key=None,
):
    """Build an encoder by name, or a trained network out of its file.

    Parameters
    ----------
    model : str
        A name of the registry, ``timm:NAME``, or ``file:PATH`` of a network that was trained end to
        end, whose weights, normalisation and size of input are in that file.
    weights : path-like, optional
        Checkpoint: safetensors, or a torch file that holds tensors only. By default what an
        installed package or the hub's cache holds.
    download : bool
        Fetch weights that are not on this machine from the hub; nothing is fetched otherwise.
    allow_other_weights : bool
        Take a file whose SHA-256 is not the registry's, which is then recorded.
    random_weights : int, optional
        Seed of random weights. For comparisons and tests; marked in every result.
    pooling : str, optional
        In place of the registry's: 'average', or of 'class', 'mean' and 'registers' what is
        wanted, with + between them.
    parts : str, optional
        What is kept beside it, in the same words; see :class:`featstore.encoders.encoder.Encoder`.
    mpp : float, None or 'own'
        Um per pixel that patches are cut at; None for whole patch files; 'own' what a trained
        network was trained at, the paper's 0.25 for others.
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
    if weights is not None and random_weights is not None:
        raise EncoderError(
            "weights from a file and random weights were asked for; give one of them"
        )
    if precision not in PRECISIONS:
        raise EncoderError(f"precision {precision!r} is unknown; take {', '.join(PRECISIONS)}")
    trained_on = None
    if is_trained_file(model):
        network, spec, trained_on = _trained_network(model, weights, random_weights)
    elif random_weights is not None:
        spec = _specification(model)
        network = _random_network(spec, random_weights)
        spec = spec.at(weights=f"random:{random_weights}", weights_from="random", terms="")
    else:
        spec = _specification(model)
        path = Path(weights) if weights is not None else _weights_here(model, spec, download)
        network, spec = _network_with_weights(model, spec, path, allow_other_weights)
    spec = spec.at(
        key=_key(key or spec.key, spec),
        pooling=pooling or spec.pooling or default_pooling(network),
        mpp=spec.mpp if mpp == "own" else mpp,
        precision=precision,
    )
    return Encoder(spec, network, parts, trained_on).to(checked_device(device))


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


def _weights_here(model, spec, download):
    row = None if model.startswith(registry.TIMM_PREFIX) else _row(model)
    found = None if row is None else find_weights(row)
    if found is None and row is not None and download:
        found = fetch_weights(row)
    if found is None:
        again = ", --download to fetch them" if row is not None and row.hub else ""
        source = f" ({spec.weights_from})" if spec.weights_from else ""
        raise EncoderError(
            f"no weights of {spec.key!r} on this machine; give a checkpoint with --weights FILE"
            f"{source}{again}, or --random-weights SEED"
        )
    return found[0]


def _row(model):
    return registry.registered(model)


def _network_with_weights(model, spec, path, allow_other):
    """Build a network with the weights of a file, and the specification that names them."""
    tensors, digest = read_checkpoint(path)
    row = None if model.startswith(registry.TIMM_PREFIX) else _row(model)
    is_other = row is not None and not digest.startswith(row.sha256)
    if is_other and not allow_other:
        raise EncoderError(
            f"{path.resolve()} has the SHA-256 {digest[:16]}..., the registry has "
            f"{row.sha256[:16]}... for {spec.key!r}; pass --allow-other-weights and a --name of "
            "its own, or get the registered file"
        )
    network = bare_network(spec)
    load_weights(network, renamed(tensors, spec), path)
    return network, spec.at(weights=digest, weights_from=_where_from(row, path, is_other))


def _trained_network(model, weights, random_weights):
    """Build a network out of its own file: also its specification, and what it was trained on."""
    if weights is not None or random_weights is not None:
        raise EncoderError(
            f"{model!r} is a network with its weights; leave out --weights and --random-weights"
        )
    file = read_trained(model)
    tensors, digest = read_checkpoint(file.path)
    with torch.device("meta"):  # no memory is taken before the tensors are known to be there
        check_fit(bare_network(file.spec), tensors, file.path)
    network = bare_network(file.spec).eval()
    load_weights(network, tensors, file.path)
    return network, file.spec.at(weights=digest, pooling=head_pooling(network)), file.trained_on


def _where_from(row, path, is_other):
    """Say which file the weights are, with the commit where that is known."""
    if is_other:
        return f"file other than the registered one, {path.name}"
    if row is not None and path.parent.parent.name == "snapshots":  # of the hub's cache
        return f"{path.name} of {row.hub} on the Hugging Face hub @{path.parent.name[:8]}"
    return f"file {path.name}"


def checked_device(device):
    """Return a torch device that is there.

    Raises
    ------
    EncoderError
        If it is not.
    """
    try:
        chosen = torch.device(device)
        torch.empty(0, device="cpu" if chosen.type == "cuda" else chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0][:LONGEST_REASON]
        raise EncoderError(
            f"device {device!r} cannot be used ({reason}); use cpu or cuda"
        ) from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise EncoderError(
            f"device {device!r} was asked for and torch finds no CUDA; use --device cpu"
        )
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise EncoderError(
            f"device {device!r} was asked for and torch finds {torch.cuda.device_count()} CUDA "
            "devices; they count from cuda:0"
        )
    return chosen
