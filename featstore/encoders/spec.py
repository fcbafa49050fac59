"""The full specification of an encoder, and the digest that is its identity.

A model's name is not an identity: the same name with another pooling, transform, resolution,
precision or weights file gives other embeddings.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

__all__ = ["EncoderSpec"]


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that decides what an embedding's numbers are.

    Parameters
    ----------
    key : str
        Name in stores.
    architecture : str
        Name of the timm model.
    build : dict
        Arguments to ``timm.create_model`` beside the name.
    input_px : int
        Width and height of the input in pixels.
    mean, std : tuple of 3 floats
        Normalisation of RGB in 0..1.
    interpolation : str
        How patches of other sizes or resolutions are brought to ``input_px``.
    pooling : str
        What of a patch is shown by default: 'average' (over positions), or of 'class', 'mean' (of
        patch tokens) and 'registers' (their mean) one or more, with + between them.
    mpp : float or None
        Um per pixel of the input; None takes whole patch files at whatever they have.
    precision : str
        'float32', 'bfloat16' or 'float16'.
    weights : str
        SHA-256 of the weights file, or 'random:SEED'.
    weights_from : str
        Where the weights can be had, or came from. Not part of the identity.
    dim : int
        Length of an embedding. Not part of the identity; the build decides it.
    terms : str
        Licence and gating of the weights. Not part of the identity.

    Examples
    --------
    >>> spec = EncoderSpec("tiny", "vit_tiny_patch16_224", weights="random:0")
    >>> spec.digest == spec.at(mpp=0.25).digest
    True
    >>> spec.differences(spec.at(mpp=0.5))
    ['mpp: 0.25, 0.5']
    """

    key: str
    architecture: str
    build: dict[str, Any] = field(default_factory=dict)
    input_px: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    pooling: str = "class"
    mpp: float | None = 0.25
    precision: str = "float32"
    weights: str = ""
    weights_from: str = ""
    dim: int = 0
    terms: str = ""

    NOT_IDENTITY: ClassVar = ("key", "weights_from", "dim", "terms")

    @property
    def identity(self):
        """The fields that decide the numbers, as plain JSON values."""
        values = {key: value for key, value in asdict(self).items() if key not in self.NOT_IDENTITY}
        return json.loads(json.dumps(values))

    @property
    def digest(self):
        """SHA-256 of the identity."""
        canonical = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def random(self):
        """Whether the weights are random."""
        return self.weights.startswith("random:")

    def at(self, **changes):
        """Return the specification with some fields changed."""
        return replace(self, **changes)

    def differences(self, other):
        """Fields in which two identities differ, as 'field: here, there'."""
        there = other.identity
        return [f"{k}: {v}, {there[k]}" for k, v in self.identity.items() if there[k] != v]

    def to_json(self):
        """All fields as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_json(cls, values):
        """Read what :meth:`to_json` wrote; unknown fields are left aside."""
        known = {entry.name for entry in fields(cls)}
        chosen = {key: value for key, value in values.items() if key in known}
        for key in ("mean", "std"):
            chosen[key] = tuple(chosen[key])
        return cls(**chosen)
