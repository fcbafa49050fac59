"""Networks that were trained end to end, as encoders: what their file says of them, and no more.

A file is safetensors with the description that docs/end-to-end.md states. It may come from anyone:
every field is looked at before it is used, nothing in it names what is called, and no memory is
taken for a network before the file is known to hold its tensors.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from featstore.encoders.spec import EncoderSpec
from featstore.errors import EncoderError, require

__all__ = ["FILE_PREFIX", "TrainedFile", "is_trained_file", "read_trained"]

FILE_PREFIX = "file:"
FORMAT, VERSION = "featstore-probes/endtoend", 2

MOST_CHARACTERS = 2**24  # of a description; ten thousand epochs take a tenth of that
LARGEST_PX = 4_096
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|")  # or none, where annotations or split had none
# Names and recipes go into provenance and onto terminals: one line, without control characters.
ONE_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{0,500}")
ARCHITECTURE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")


@dataclass(frozen=True)
class TrainedFile:
    """What a file says of the network that it holds.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    architecture : str
        Name of the timm model.
    build : dict
        Arguments to ``timm.create_model`` beside the name.
    input_px : int
        Width and height of the input in pixels.
    mean, std : tuple of 3 floats
        Normalisation of RGB in 0..1.
    mpp : float or None
        Um per pixel that it was trained at; None for whole patch files.
    trained_on : dict
        ``split`` and ``dataset_digest`` ('sha256:...', or '' where they had none), ``dataset``,
        ``n_train`` and ``recipe``: which annotations it has seen.
    """

    path: Path
    architecture: str
    build: dict
    input_px: int
    mean: tuple
    std: tuple
    mpp: float | None
    trained_on: dict = field(default_factory=dict)

    @property
    def key(self):
        """Name in stores, where none is given: the file's, in the characters that names have."""
        key = re.sub(r"[^a-z0-9._-]+", "-", self.path.stem.lower()).strip("-._")
        if not key:
            raise EncoderError(f"the name of {self.path} gives no name in a store; give --name")
        return key

    @property
    def spec(self):
        """The specification, apart from pooling, precision and the SHA-256 of the file."""
        seen = self.trained_on
        return EncoderSpec(
            key=self.key,
            architecture=self.architecture,
            build=self.build,
            input_px=self.input_px,
            mean=self.mean,
            std=self.std,
            pooling="",
            mpp=self.mpp,
            weights_from=f"file {self.path.name}, trained end to end on {seen['n_train']} "
            f"annotations of {seen['dataset']!r}, split {seen['split'] or 'without digest'}",
        )


def is_trained_file(model):
    """Whether a model is asked for as ``file:PATH``.

    Examples
    --------
    >>> is_trained_file("file:networks/net.safetensors"), is_trained_file("timm:resnet50")
    (True, False)
    """
    return model.startswith(FILE_PREFIX)


def read_trained(model):
    """Read the description of a trained network; its tensors are not looked at.

    Parameters
    ----------
    model : str
        ``file:PATH``.

    Returns
    -------
    TrainedFile

    Raises
    ------
    EncoderError
        If there is no such file, or what it says of its network cannot be used.
    MissingExtraError
        If safetensors or timm is not installed.

    Examples
    --------
    >>> read_trained("file:nowhere.safetensors")
    Traceback (most recent call last):
    ...
    featstore.errors.EncoderError: there is no file nowhere.safetensors; give file:PATH of ...
    """
    path = Path(model.removeprefix(FILE_PREFIX))
    about = _description(path)
    said = _Description(about, path)
    input_px = said.number("input_px", kind=int, least=1, most=LARGEST_PX)
    return TrainedFile(
        path=path,
        architecture=_architecture(said),
        build=_build(said, input_px),
        input_px=input_px,
        mean=said.rgb("mean", least=-math.inf),
        std=said.rgb("std", least=0),
        mpp=None if about.get("mpp") is None else said.number("mpp", kind=float, most=1_000),
        trained_on={
            "split": said.text("split", DIGEST),
            "dataset": said.text("dataset", ONE_LINE),
            "dataset_digest": said.text("dataset_digest", DIGEST),
            "n_train": said.number("n_train", kind=int, least=1, most=2**63),
            "recipe": said.text("recipe_text", ONE_LINE),
        },
    )


def _description(path):
    """Read what stands in the file beside its tensors."""
    safetensors = require("safetensors", extra="extract", purpose="reading trained networks")
    if not path.is_file():
        raise EncoderError(
            f"there is no file {path}; give file:PATH of a network that 'featstore train --save' "
            "kept"
        )
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get("about", "")
    except (OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise EncoderError(f"{path} cannot be read as safetensors: {reason}") from error
    return _parsed(text, path)


def _parsed(text, path):
    try:
        if len(text) > MOST_CHARACTERS:
            raise ValueError(f"{len(text):,} characters are too many")
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        about = {"format": f"without a description ({error})"}
    found = (about.get("format"), about.get("version")) if isinstance(about, dict) else about
    if found != (FORMAT, VERSION):
        raise EncoderError(
            f"{path} is no network that 'featstore train' kept: it should say {FORMAT!r} version "
            f"{VERSION} and says {str(found)[:100]!r}; for other weights give --model timm:NAME "
            "and --weights FILE"
        )
    return about


class _Description:
    """Fields of a description from a stranger, each given as what it must be, or refused."""

    def __init__(self, about, path):
        self._about = about
        self._path = path

    def refuse(self, name, wanted):
        """Raise one line on a field."""
        found = repr(self._about.get(name))[:60]
        raise EncoderError(
            f"{self._path} says {name}={found}, which should be {wanted}; get the file again"
        )

    def number(self, name, *, kind, least=0, most):
        value = self._about.get(name)
        accepted = (int, float) if kind is float else kind
        is_one = isinstance(value, accepted) and not isinstance(value, bool)
        if not is_one or not least <= value <= most or (kind is float and value == 0):
            self.refuse(name, f"a number from {least} to {most:,}")
        return kind(value)

    def text(self, name, pattern):
        value = self._about.get(name)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.refuse(name, "a digest" if pattern is DIGEST else "a text of one line")
        return value

    def rgb(self, name, *, least):
        values = self._about.get(name)
        is_three = isinstance(values, list) and len(values) == 3
        plain = is_three and all(type(value) in (int, float) for value in values)
        if not plain or not all(math.isfinite(value) and value > least for value in values):
            self.refuse(name, "three finite numbers" + (", each above 0" if least == 0 else ""))
        return tuple(float(value) for value in values)

    def arguments(self, name):
        values = self._about.get(name)
        return values if isinstance(values, dict) else self.refuse(name, "names with values")


def _architecture(said):
    """Name of a network that timm has; what else it would take for a name is never passed on."""
    timm = require("timm", extra="extract", purpose="building encoders")
    name = said.text("architecture", ONE_LINE)
    bare, _, tag = name.partition(".")
    known = ARCHITECTURE.fullmatch(name) and timm.is_model(bare)
    if not known or (tag and name not in timm.list_pretrained(f"{bare}*")):
        said.refuse("architecture", f"a network of timm (here {timm.__version__})")
    return name


def _build(said, input_px):
    """Arguments to timm's builder: the size of the input, for those that are built for one."""
    arguments = said.arguments("arguments")
    if arguments not in ({}, {"img_size": input_px}):
        said.refuse("arguments", f"{{}} or {{'img_size': {input_px}}}")
    return arguments
