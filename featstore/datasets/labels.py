"""Names of classes in annotation files, and the label that each of them means.

The same two classes are written in many ways; here each spelling has one label. A name that is
not known here keeps no meaning by guess: a reader refuses it, leaves it out or keeps it as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from featstore.annotations import LOOK_ALIKE, MITOTIC_FIGURE
from featstore.datasets.untrusted import short
from featstore.errors import AnnotationError

__all__ = ["SPELLINGS", "LabelMap", "known_label"]

# Names in the files of the MIDOG challenges, MIDOG++ and SlideRunner databases, and their obvious
# variants; lower case, words parted by one blank.
SPELLINGS = {
    "mitotic figure": MITOTIC_FIGURE,
    "mitotic figures": MITOTIC_FIGURE,
    "mitotic cell": MITOTIC_FIGURE,
    "mitose": MITOTIC_FIGURE,
    "mitosis": MITOTIC_FIGURE,
    "look-alike": LOOK_ALIKE,
    "hard negative": LOOK_ALIKE,
    "hard negative (non-mitotic cell)": LOOK_ALIKE,
    "hard negative look-alike": LOOK_ALIKE,
    "mitotic figure look-alike": LOOK_ALIKE,
    "mitosis look-alike": LOOK_ALIKE,
    "non-mitotic cell": LOOK_ALIKE,
    "non-mitotic figure": LOOK_ALIKE,
    "non mitosis": LOOK_ALIKE,
    "not mitotic figure": LOOK_ALIKE,
}


def known_label(name):
    """Give the label that a class name is a spelling of, or None.

    Examples
    --------
    >>> known_label(" Hard  Negative"), known_label("mitotic_figure"), known_label("granulocyte")
    ('look-alike', 'mitotic figure', None)
    """
    return SPELLINGS.get(_plain(name))


def _plain(name):
    return " ".join(str(name).replace("_", " ").lower().split())


@dataclass(frozen=True)
class LabelMap:
    """Labels of a file's class names: what the caller says, else what is known.

    Parameters
    ----------
    asked : mapping of str to str, optional
        Label of a class name, as the caller gives it; case and blanks of the name do not count.

    Raises
    ------
    AnnotationError
        If a name or a label is empty, or a label holds a control character.

    Examples
    --------
    >>> labels = LabelMap({"Mitose!": "mitotic figure"})
    >>> labels.of("Mitose!"), labels.of("Hard negative"), labels.of("granulocyte")
    ('mitotic figure', 'look-alike', None)
    """

    asked: Mapping[str, str] | None = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "asked", dict(self.asked or {}))
        for name, label in self.asked.items():
            if not (
                _plain(name) and isinstance(label, str) and label.strip() and label.isprintable()
            ):
                raise AnnotationError(
                    f"label {short(label)} for the class {short(name)}: both need a name of plain "
                    "letters, such as 'Mitose=mitotic figure'"
                )
        object.__setattr__(
            self, "_of", {_plain(name): label.strip() for name, label in self.asked.items()}
        )

    def of(self, name):
        """Label of a class name, or None where neither the caller nor this module knows it."""
        return self.asked_for(name) or known_label(name)

    def asked_for(self, name):
        """Label that the caller gives a class name, or None."""
        return self._of.get(_plain(name))

    def check_names(self, names, path):
        """Refuse a class name of the caller's that the file does not have.

        Parameters
        ----------
        names : iterable of str
            Class names of the file.
        path : path-like
            File, as the error names it.
        """
        names = list(dict.fromkeys(map(str, names)))
        there = set(map(_plain, names))
        lost = [name for name in self.asked if _plain(name) not in there]
        if lost:
            known = ", ".join(map(short, names[:10])) + (", ..." if len(names) > 10 else "")
            raise AnnotationError(
                f"{path} has no class {short(lost[0])} to give a label; it has {known or 'none'}"
            )
