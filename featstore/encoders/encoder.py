"""A network with its normalisation and pooling: uint8 patches in, embeddings out.

Shape suffixes: N patches, H and W positions, C channels, D features.
"""

import contextlib

from featstore.encoders.pooling import default_parts, embedding_parts, pool
from featstore.errors import EncoderError, require

torch = require("torch", extra="extract", purpose="building encoders")

__all__ = ["PRECISIONS", "Encoder", "refused_in_one_line"]

LONGEST_REASON = 200  # characters of an error of torch, whose first line may be a page
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Encoder(torch.nn.Module):
    """A network as it was built, with what makes embeddings of patches out of it.

    Parameters
    ----------
    spec : EncoderSpec
        What was built; ``dim`` is filled in.
    network : torch.nn.Module
        A timm network with its weights.
    parts : str, optional
        What is kept of a patch beyond what ``spec.pooling`` shows by default, as
        :func:`featstore.encoders.pooling.embedding_parts` takes it: by default class token and
        patch mean, where the network has both.
    trained_on : dict, optional
        Which annotations a network has been trained on, as
        :class:`featstore.encoders.trained.TrainedFile` has it; it goes into the provenance.

    Raises
    ------
    EncoderError
        If the network has no such parts, or they lack one that is shown by default.

    Examples
    --------
    >>> import numpy as np
    >>> from featstore.encoders.build import build
    >>> encoder = build("timm:test_vit", random_weights=0)
    >>> encoder.parts
    {'class': (0, 64), 'mean': (64, 128)}
    >>> patches = np.zeros((2, 160, 160, 3), np.uint8)
    >>> encoder.embed(patches).shape, encoder.embed_parts(patches).shape
    (torch.Size([2, 64]), torch.Size([2, 128]))
    """

    def __init__(self, spec, network, parts=None, trained_on=None):
        super().__init__()
        self.trained_on = trained_on
        shown = embedding_parts(network, spec.pooling)
        self.pooled = parts or default_parts(network, spec.pooling)
        self.parts = embedding_parts(network, self.pooled)
        if not shown.keys() <= self.parts.keys():
            raise EncoderError(
                f"{spec.key!r} shows {spec.pooling} by default and {self.pooled} is to be kept; "
                "keep that too, or ask for another pooling"
            )
        self.spec = spec.at(dim=max(stop for _, stop in shown.values()))
        self.network = _in_best_layout(network.eval())
        self.register_buffer("mean", _per_channel(spec.mean), persistent=False)
        self.register_buffer("std", _per_channel(spec.std), persistent=False)

    @property
    def device(self):
        """Device of the weights."""
        return self.mean.device

    def at(self, precision):
        """Return the encoder with the same weights and another precision of the forward pass."""
        spec = self.spec.at(precision=precision)
        return Encoder(spec, self.network, self.pooled, self.trained_on).to(self.device)

    def forward(self, patches_NHWC):
        """Embed uint8 patches that are on the encoder's device; shape (N, D), float32.

        Convolutions and matrix products are in the precision of the specification, everything
        else is in float32, as torch's autocast has it.
        """
        images_NCHW = patches_NHWC.permute(0, 3, 1, 2).float().div(255)
        images_NCHW = images_NCHW.sub(self.mean).div(self.std)
        dtype = PRECISIONS[self.spec.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return pool(self.network, images_NCHW, self.pooled)

    @torch.inference_mode()
    def embed_parts(self, patches_NHWC):
        """Embed uint8 patches (N, input_px, input_px, 3), keeping all :attr:`parts`.

        Returns
        -------
        torch.Tensor of shape (N, sum of the widths of the parts), float32, on the encoder's device
        """
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self(torch.as_tensor(patches_NHWC).to(self.device))

    def embed(self, patches_NHWC):
        """Embed uint8 patches (N, input_px, input_px, 3) as the specification's pooling has it.

        Returns
        -------
        torch.Tensor of shape (N, dim), float32, on the encoder's device
        """
        rows_ND = self.embed_parts(patches_NHWC)
        shown = [slice(*self.parts[name]) for name in self.spec.pooling.split("+")]
        return torch.cat([rows_ND[:, columns] for columns in shown], dim=1)


@contextlib.contextmanager
def refused_in_one_line(encoder, device, precision):
    """Turn what torch raises for kernels that fail, or are not there, into one line.

    Raises
    ------
    EncoderError
        In place of any RuntimeError but that of a device without memory.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0].rstrip(".")[:LONGEST_REASON]
        raise EncoderError(
            f"{device} cannot run {encoder.spec.key!r} in {precision}: {reason}; use another "
            "--precision or --device, or --compile off"
        ) from error


def _in_best_layout(network):
    """Convolutional networks run 1.7 times as fast on a CPU with channels last; ViTs do not."""
    convolutional = not hasattr(network, "num_prefix_tokens")
    return network.to(memory_format=torch.channels_last) if convolutional else network


def _per_channel(values):
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
