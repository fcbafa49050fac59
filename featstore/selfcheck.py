"""Does this machine compute what it should? An encoder on a device against itself on the CPU.

What is tried is what an extraction runs: the prepared encoder, batch by batch. Golden patches go
in, no store is needed and none is touched.
"""

import hashlib
import math
from dataclasses import dataclass

from featstore.encoders.build import checked_device
from featstore.encoders.encoder import refused_in_one_line
from featstore.encoders.golden import golden_patches
from featstore.encoders.precision import LEAST_COSINE, cosines
from featstore.encoders.prepared import prepared
from featstore.errors import EncoderError, require
from featstore.pipeline.forward import Forward

torch = require("torch", extra="extract", purpose="the self-check")

__all__ = ["LEAST_COSINES", "Comparison", "Selfcheck", "selfcheck"]

# float32 summed in another order leaves a cosine within 1e-9 of 1. With inputs of convolutions cut
# to the 10 bits of TF32, EfficientNet-Lite0 has 0.99997 on golden patches (emulated on a CPU), and
# that is no float32. For half the bits, what the choice of a precision asks for.
LEAST_COSINES = {"float32": 0.99999, "bfloat16": LEAST_COSINE, "float16": LEAST_COSINE}
# A cosine does not see a factor, so differences are held too: a cosine c goes with differences of
# about sqrt(2 (1 - c)) of the largest value (0.8 to 1.1 times that in three networks and three
# precisions), and this many times as much is refused.
DIFFERENCES = 4
N_PATCHES = 8
ODD_BATCH = 3


@dataclass(frozen=True)
class Comparison:
    """One part of the embeddings of the golden patches, computed in two ways.

    Parameters
    ----------
    against : str
        'CPU float32', 'batches of 1', 'batches of 3' or 'the same again': what the device's
        embeddings, in one batch, were held against.
    part : str
        'class', 'mean', 'registers' or 'average'.
    least_cosine : float
        Least cosine of a patch's two embeddings; 1 where they are equal to the bit, NaN where one
        is not finite.
    largest_difference : float
        Largest absolute difference of two values.
    largest_value : float
        Largest absolute value of what was held against, to judge the difference by.
    allowed : float
        Cosine that is needed; 1 asks for equality to the bit.
    """

    against: str
    part: str
    least_cosine: float
    largest_difference: float
    largest_value: float
    allowed: float

    @property
    def allowed_difference(self):
        """Largest difference that goes with the cosine that is needed."""
        return DIFFERENCES * math.sqrt(2 * (1 - self.allowed)) * self.largest_value

    @property
    def ok(self):
        """Whether both are near enough; what is not finite never is."""
        near = self.least_cosine >= self.allowed
        return near and self.largest_difference <= self.allowed_difference


@dataclass(frozen=True)
class Selfcheck:
    """What a self-check found.

    Parameters
    ----------
    device, precision : str
        Where and in what the encoder was run.
    compiled : bool
        Whether it was compiled.
    batch_size : int
        Patches in one pass.
    patches_sha256 : str
        SHA-256 of the eight golden patches that the CPU embeds. Another one on another machine
        means that figures of the two are of other patches, and nothing more.
    comparisons : tuple of Comparison
        In the order in which they were made.
    """

    device: str
    precision: str
    compiled: bool
    batch_size: int
    patches_sha256: str
    comparisons: tuple[Comparison, ...]

    @property
    def ok(self):
        """Whether every comparison is."""
        return self.first_failure is None

    @property
    def first_failure(self):
        """The first comparison that is not near enough, or None."""
        return next((line for line in self.comparisons if not line.ok), None)


def selfcheck(encoder, *, device, precision, batch_size=N_PATCHES, compiled=False):
    """Compare an encoder's embeddings of golden patches with its own on the CPU in float32.

    Parameters
    ----------
    encoder : featstore.encoders.encoder.Encoder
        On the CPU and in float32, as :func:`featstore.encoders.build.build` gives it; it is not
        changed.
    device : str
        A torch device.
    precision : {'float32', 'bfloat16', 'float16'}
        Of the forward pass there.
    batch_size : int
        Patches in one pass.
    compiled : bool
        Compile the encoder, as an extraction does where it is asked to.

    Returns
    -------
    Selfcheck

    Raises
    ------
    EncoderError
        If the device is not there, or cannot run the encoder at all.

    Notes
    -----
    Needed are cosines of 0.99999 in float32 and 0.999 in half the bits, for each part of each
    patch: against the CPU, and against the same patches in batches of 1 and of 3. The same batch
    again must be near too, and on a CPU in float32 equal to the bit.

    Examples
    --------
    >>> from featstore.encoders.build import build
    >>> encoder = build("timm:test_vit", random_weights=0)
    >>> found = selfcheck(encoder, device="cpu", precision="float32")
    >>> found.ok, len(found.comparisons)
    (True, 8)
    """
    chosen = checked_device(device)
    _check(encoder, precision)
    patches = golden_patches(encoder.spec.input_px, max(N_PATCHES, batch_size))
    expected = encoder.embed_parts(patches[:N_PATCHES]).numpy()
    with refused_in_one_line(encoder, chosen, precision):
        ready = prepared(encoder.at(precision)).to(chosen)
        forward = Forward(ready, batch_size=batch_size, compiled=compiled)
        together = forward.embed(patches)
        ones, threes = (_in_batches(forward, patches, size) for size in (1, ODD_BATCH))
        again = forward.embed(patches)
    near = LEAST_COSINES[precision]
    exactly = 1.0 if (chosen.type, precision) == ("cpu", "float32") else near
    comparisons = (
        *_compared("CPU float32", together[:N_PATCHES], expected, encoder.parts, near),
        *_compared("batches of 1", together, ones, encoder.parts, near),
        *_compared(f"batches of {ODD_BATCH}", together, threes, encoder.parts, near),
        *_compared("the same again", together, again, encoder.parts, exactly),
    )
    digest = hashlib.sha256(patches[:N_PATCHES].tobytes()).hexdigest()
    return Selfcheck(str(chosen), precision, compiled, batch_size, digest, comparisons)


def _check(encoder, precision):
    if precision not in LEAST_COSINES:
        raise EncoderError(f"precision {precision!r} is unknown; take {', '.join(LEAST_COSINES)}")
    if encoder.device.type != "cpu" or encoder.spec.precision != "float32":
        raise EncoderError(
            f"{encoder.spec.key!r} is on {encoder.device} in {encoder.spec.precision}; a check "
            "starts from it on the CPU in float32, as build() gives it"
        )


def _in_batches(forward, patches, size):
    """Embed some patches at a time; a compiled pass fills such batches up itself."""
    pieces = [patches[start : start + size] for start in range(0, len(patches), size)]
    return torch.cat([torch.as_tensor(forward.embed(piece)) for piece in pieces]).numpy()


def _compared(against, rows_ND, expected_ND, parts, allowed):
    """Compare part by part, in torch, which takes what is not finite without a warning."""
    here, there = torch.as_tensor(rows_ND), torch.as_tensor(expected_ND)
    near = cosines(here, there, parts)
    for part, (start, stop) in parts.items():
        one, other = here[:, start:stop], there[:, start:stop]
        equal = bool(one.isfinite().all()) and torch.equal(one, other)
        yield Comparison(
            against=against,
            part=part,
            least_cosine=1.0 if equal else near[part].min().clamp(max=1).item(),
            largest_difference=(one - other).abs().max().item(),
            largest_value=other.abs().max().item(),
            allowed=allowed,
        )
