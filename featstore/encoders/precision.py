"""Which precision an encoder is run in where nobody says: the fastest that keeps its embeddings.

An encoder's embeddings in half the bits are compared, on golden patches, with those in all of
them: no table of names could know what other weights do.
"""

from dataclasses import dataclass

from featstore.encoders import registry
from featstore.encoders.golden import golden_patches
from featstore.encoders.prepared import prepared
from featstore.encoders.trained import FILE_PREFIX
from featstore.errors import require

torch = require("torch", extra="extract", purpose="building encoders")

__all__ = [
    "LEAST_COSINE",
    "PrecisionChoice",
    "best_precision",
    "cosines",
    "recommended_precision",
]

# A cosine below this counts as another embedding: what this project asks of a precision.
LEAST_COSINE = 0.999


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision, and why it was taken.

    Parameters
    ----------
    precision : str
        'float32', 'bfloat16' or 'float16'.
    reason : str
        In a few words.
    """

    precision: str
    reason: str


def recommended_precision(model):
    """Return what a model is run in on a GPU: its authors' choice, float32 where none is known.

    Parameters
    ----------
    model : str
        A name of the registry, ``timm:NAME``, or ``file:PATH`` of a trained network.

    Examples
    --------
    >>> recommended_precision("virchow2"), recommended_precision("timm:test_vit")
    ('float16', 'float32')
    """
    if model.startswith((registry.TIMM_PREFIX, FILE_PREFIX)):
        return "float32"
    return registry.registered(model).precision


def best_precision(encoder, *, recommended="float32"):
    """Choose the precision of the forward pass for the device that an encoder is on.

    Parameters
    ----------
    encoder : featstore.encoders.encoder.Encoder
        In any precision, with its weights.
    recommended : str
        What is taken on a GPU: its authors' choice. On a CPU that computes in bfloat16 it is that.

    Returns
    -------
    PrecisionChoice
        float32 where a golden patch's embedding in the other precision, any part of it, has a
        cosine under 0.999 to that in float32.

    Examples
    --------
    >>> from featstore.encoders.build import build
    >>> encoder = build("timm:test_vit", random_weights=0)
    >>> best_precision(encoder).precision in ("float32", "bfloat16")
    True
    """
    candidate, why = _candidate(encoder.device, recommended)
    if candidate == "float32":
        return PrecisionChoice("float32", why)
    patches = golden_patches(encoder.spec.input_px)
    exact = encoder.at("float32").embed_parts(patches)
    fast = prepared(encoder.at(candidate)).embed_parts(patches)
    least = min(part.min().item() for part in cosines(exact, fast, encoder.parts).values())
    if not least >= LEAST_COSINE:  # also where it is nan
        return PrecisionChoice(
            "float32", f"{candidate} embeddings have a cosine of only {least:.4f} to float32"
        )
    return PrecisionChoice(candidate, f"{why}; cosine to float32 {least:.5f} or more")


def cosines(rows_ND, others_ND, parts):
    """Cosines between embeddings, part by part.

    Parameters
    ----------
    rows_ND, others_ND : torch.Tensor of shape (N, D)
        Embeddings of the same patches.
    parts : dict of str to (start, stop)
        Named slices of them.

    Returns
    -------
    dict of str to torch.Tensor of shape (N,)
    """
    between = torch.nn.functional.cosine_similarity
    here, there = rows_ND.double().cpu(), others_ND.double().cpu()
    return {
        name: between(here[:, start:stop], there[:, start:stop])
        for name, (start, stop) in parts.items()
    }


def _candidate(device, recommended):
    if device.type != "cpu":
        return recommended, "recommended for this encoder"
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bfloat16", "this CPU computes in bfloat16"
    return "float32", "this CPU does not compute in bfloat16"
