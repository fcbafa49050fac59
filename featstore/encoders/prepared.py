"""The same encoder, made ready for a long run: what can be computed once is not left to each batch.

Batch norms are folded into the convolutions before them, and weights of convolutions and matrix
products are cast to the precision of the forward pass. Embeddings stay what they were up to
rounding; the networks are copies, and the encoder that was built is left as it is.
"""

import copy

from featstore.encoders.encoder import PRECISIONS, Encoder
from featstore.errors import require

torch = require("torch", extra="extract", purpose="building encoders")
timm = require("timm", extra="extract", purpose="building encoders")

__all__ = ["prepared"]

CAST = (torch.nn.Linear, torch.nn.Conv2d)
# These compute their weights anew in each pass, which wants all digits of them.
STANDARDISING = (
    timm.layers.StdConv2d,
    timm.layers.StdConv2dSame,
    timm.layers.ScaledStdConv2d,
    timm.layers.ScaledStdConv2dSame,
)
# A folded network computes what it did, or is not used; rounding alone is 1e-6 of the values.
LARGEST_CHANGE = 1e-4


def prepared(encoder):
    """Return an encoder that gives the same embeddings in less time.

    Parameters
    ----------
    encoder : featstore.encoders.encoder.Encoder
        As it was built; it is not changed.

    Returns
    -------
    featstore.encoders.encoder.Encoder
        On the same device.

    Notes
    -----
    Folding is done before casting: a compiler that folds what is already in bfloat16 loses digits
    (EfficientNet-Lite0: cosine 0.987 to float32 in place of 0.997).

    Examples
    --------
    >>> import numpy as np
    >>> from featstore.encoders.build import build
    >>> encoder = build("timm:test_resnet", random_weights=0)
    >>> patches = np.zeros((1, 160, 160, 3), np.uint8)
    >>> torch.allclose(encoder.embed(patches), prepared(encoder).embed(patches), atol=1e-5)
    True
    """
    network = copy.deepcopy(encoder.network)
    _fold_batch_norms(network, encoder.spec.input_px)
    dtype = PRECISIONS[encoder.spec.precision]
    if dtype is not None:
        for module in network.modules():
            if isinstance(module, CAST) and not isinstance(module, STANDARDISING):
                module.to(dtype)
    return Encoder(encoder.spec, network, encoder.pooled, encoder.trained_on).to(encoder.device)


@torch.no_grad()  # not inference_mode: its tensors could not be cast in place afterwards
def _fold_batch_norms(network, input_px):
    """Fold each batch norm that is all that a convolution's output is used for."""
    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()):
        return
    device = next(network.parameters()).device
    images = torch.rand((1, 3, input_px, input_px), device=device, generator=_generator(device))
    as_it_was = copy.deepcopy(network)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        pairs, expected = _followed(network, images)
        for convolution, norm in pairs:
            _fold(network, convolution, norm)
        change = (network(images) - expected).abs().max()
    if not change <= LARGEST_CHANGE * expected.abs().max():
        _undo(network, as_it_was)


def _generator(device):
    return torch.Generator(device).manual_seed(0)


def _followed(network, images):
    """Names of convolutions and of the batch norms that got their output, and the network's own."""
    outputs, pairs, hooks = {}, [], []

    def after_convolution(name):
        return lambda module, args, output: outputs.update({id(output): (name, output)})

    def before_norm(name):
        def note(module, args):
            if id(args[0]) in outputs:
                pairs.append((outputs.pop(id(args[0]))[0], name))

        return note

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d) and not isinstance(module, STANDARDISING):
            hooks.append(module.register_forward_hook(after_convolution(name)))
        elif isinstance(module, torch.nn.BatchNorm2d) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        expected = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs, expected


def _fold(network, convolution, norm):
    """Put a batch norm into the convolution before it, leaving its activation where it stood."""
    before, after = network.get_submodule(convolution), network.get_submodule(norm)
    folded = torch.nn.utils.fusion.fuse_conv_bn_eval(before, after)
    before.weight, before.bias = folded.weight, folded.bias
    left = torch.nn.Identity()
    if isinstance(after, timm.layers.BatchNormAct2d):
        left = torch.nn.Sequential(after.drop, after.act)
    network.set_submodule(norm, left)


def _undo(network, as_it_was):
    for name, module in as_it_was.named_children():
        setattr(network, name, module)
