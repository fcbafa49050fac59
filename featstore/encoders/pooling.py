"""From a network's features to one embedding per patch.

Shape suffixes: N patches, C channels, H and W positions, T tokens (prefix tokens first), D width
of a token.
"""

from featstore.errors import EncoderError

__all__ = ["default_pooling", "embedding_parts", "pool"]


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
    return "mean" if getattr(network, "cls_token", None) is None else "class"


def embedding_parts(network, pooling):
    """Named slices of an embedding.

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
    has_tokens = hasattr(network, "num_prefix_tokens")
    if not has_tokens and getattr(network, "global_pool", "avg") == "token":
        raise EncoderError(
            f"{type(network).__name__} pools by a class token in a way of its own, which is not "
            "known here; take another network"
        )
    known = ("class", "mean", "class+mean") if has_tokens else ("average",)
    if pooling not in known:
        raise EncoderError(
            f"pooling {pooling!r} does not fit {type(network).__name__}; it can do "
            f"{', '.join(known)}"
        )
    if "class" in pooling and getattr(network, "cls_token", None) is None:
        raise EncoderError(f"{type(network).__name__} has no class token; use --pooling mean")
    names, width = pooling.split("+"), getattr(network, "head_hidden_size", network.num_features)
    return {name: (place * width, (place + 1) * width) for place, name in enumerate(names)}


def pool(network, images_NCHW, pooling):
    """Embed normalised images.

    The patch mean leaves out all prefix tokens, registers included, by the network's own
    ``num_prefix_tokens``.

    Parameters
    ----------
    network : torch.nn.Module
        A timm network.
    images_NCHW : torch.Tensor
        Normalised images.
    pooling : str
        As :func:`embedding_parts` takes it.

    Returns
    -------
    torch.Tensor of shape (N, dim), float32
    """
    features = network.forward_features(images_NCHW)
    if pooling == "average":
        return network.forward_head(features, pre_logits=True).float()
    tokens_NTD = features.float()
    parts = {
        "class": lambda: tokens_NTD[:, 0],
        "mean": lambda: tokens_NTD[:, network.num_prefix_tokens :].mean(1),
    }
    chosen_ND = [parts[name]() for name in pooling.split("+")]
    return chosen_ND[0] if len(chosen_ND) == 1 else _concatenate(chosen_ND)


def _concatenate(parts_ND):
    import torch

    return torch.cat(parts_ND, dim=1)
