"""From a network's features to the parts of an embedding: named vectors beside each other.

Shape suffixes: N patches, C channels, H and W positions, T tokens (prefix tokens first), D width
of a token.
"""

import torch

from featstore.errors import EncoderError

__all__ = ["default_parts", "default_pooling", "embedding_parts", "head_pooling", "pool"]

PARTS = ("average", "class", "mean", "registers", "head")


def default_pooling(network):
    """'class' for a network with a class token, 'mean' for other tokens, else 'average'.

    Examples
    --------
    >>> import timm
    >>> default_pooling(timm.create_model("test_vit", num_classes=0))
    'class'
    """
    if not hasattr(network, "num_prefix_tokens"):
        return "average"
    return "class" if _n_class_tokens(network) else "mean"


@torch.inference_mode()
def head_pooling(network):
    """Name what the network's own classifier is given, by trying it on tokens.

    Parameters
    ----------
    network : torch.nn.Module
        A timm network in evaluation mode, without or with a classifier.

    Returns
    -------
    str
        'average' for a network without tokens; 'class' or 'mean' where the classifier is given
        just that, else 'head': that mean behind a norm of its own, for instance.

    Examples
    --------
    >>> import timm
    >>> head_pooling(timm.create_model("test_vit", num_classes=0).eval())
    'class'
    """
    if not hasattr(network, "num_prefix_tokens"):
        return default_pooling(network)
    weight = next(network.parameters())
    n_tokens = network.num_prefix_tokens + 3
    tokens_NTD = torch.linspace(-1, 2, n_tokens * network.num_features).square()
    tokens_NTD = tokens_NTD.reshape(1, n_tokens, -1).to(weight)
    given_ND = network.forward_head(tokens_NTD, pre_logits=True)
    if _n_class_tokens(network) and torch.equal(given_ND, tokens_NTD[:, 0]):
        return "class"
    mean_ND = tokens_NTD[:, network.num_prefix_tokens :].mean(1)
    return "mean" if torch.equal(given_ND, mean_ND) else "head"


def default_parts(network, pooling):
    """Choose what is kept of a patch, so that another pooling needs no second extraction.

    Parameters
    ----------
    network : torch.nn.Module
        A timm network.
    pooling : str
        What is shown of it by default, and is kept in any case.

    Returns
    -------
    str
        Class token and patch mean of a network that has both; register tokens only where
        ``pooling`` is of them.

    Examples
    --------
    >>> import timm
    >>> default_parts(timm.create_model("test_vit", num_classes=0), "class")
    'class+mean'
    """
    kept = {default_pooling(network), *pooling.split("+")}
    if "class" in kept:
        kept.add("mean")
    return "+".join(name for name in PARTS if name in kept)


def embedding_parts(network, parts):
    """Named slices of an embedding.

    Parameters
    ----------
    network : torch.nn.Module
        A timm network.
    parts : str
        'average' for a network without tokens; else any of 'class', 'mean' (of the patch tokens),
        'registers' (their mean) and 'head' (what its own classifier is given), with '+' between
        them.

    Returns
    -------
    dict of str to (start, stop)
        In the order in which they stand, for instance ``{'class': (0, 768), 'mean': (768, 1536)}``.

    Raises
    ------
    EncoderError
        If the network has no such tokens.

    Examples
    --------
    >>> import timm
    >>> embedding_parts(timm.create_model("test_vit", num_classes=0), "class+mean")
    {'class': (0, 64), 'mean': (64, 128)}
    """
    names, known = parts.split("+"), _known_parts(network)
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise EncoderError(
            f"pooling {parts!r} does not fit {type(network).__name__}; it can do "
            f"{', '.join(known)}{', and these with + between them' if len(known) > 1 else ''}"
        )
    width = getattr(network, "head_hidden_size", network.num_features)
    return {name: (place * width, (place + 1) * width) for place, name in enumerate(names)}


def _known_parts(network):
    if not hasattr(network, "num_prefix_tokens"):
        if getattr(network, "global_pool", "avg") == "token":
            raise EncoderError(
                f"{type(network).__name__} pools by a class token in a way of its own, which is "
                "not known here; take another network"
            )
        return ("average",)
    n_class = _n_class_tokens(network)
    known = ["class"] * n_class + ["mean"]
    return [*known, *["registers"] * (network.num_prefix_tokens > n_class), "head"]


def _n_class_tokens(network):
    return int(getattr(network, "cls_token", None) is not None)


def pool(network, images_NCHW, parts):
    """Embed normalised images.

    The patch mean leaves out all prefix tokens, registers included, by the network's own
    ``num_prefix_tokens``.

    Parameters
    ----------
    network : torch.nn.Module
        A timm network.
    images_NCHW : torch.Tensor
        Normalised images.
    parts : str
        As :func:`embedding_parts` takes it.

    Returns
    -------
    torch.Tensor of shape (N, sum of the widths of the parts), float32
    """
    features = network.forward_features(images_NCHW)
    if parts == "average":
        return network.forward_head(features, pre_logits=True).float()
    tokens_NTD = features.float()
    n_class, n_prefix = _n_class_tokens(network), network.num_prefix_tokens
    pooled_ND = {
        "class": lambda: tokens_NTD[:, 0],
        "mean": lambda: tokens_NTD[:, n_prefix:].mean(1),
        "registers": lambda: tokens_NTD[:, n_class:n_prefix].mean(1),
        "head": lambda: network.forward_head(features, pre_logits=True).float(),
    }
    return torch.cat([pooled_ND[name]() for name in parts.split("+")], dim=1)
