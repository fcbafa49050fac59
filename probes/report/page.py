"""The page: sections of text, tables and figures, rendered into one HTML file.

The file asks nothing of a network and runs no script: figures are data in the page, and its content
security policy forbids all else.
"""

import base64
import io
import math
from dataclasses import dataclass, field
from pathlib import Path

from probes.errors import require
from probes.report.folder import write_text

__all__ = ["Code", "Figure", "Note", "Report", "Section", "Table", "Text"]

TEMPLATE = "page.html"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Note:
    """A paragraph that a reader should not miss: what is not there, or what to be wary of."""

    text: str
    kind: str = field(default="note", init=False)


@dataclass(frozen=True)
class Code:
    """Commands, as they are typed."""

    text: str
    kind: str = field(default="code", init=False)


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Parameters
    ----------
    frame : DataFrame
        Its columns are the heading.
    caption : str
    """

    frame: object
    caption: str
    kind: str = field(default="table", init=False)

    @property
    def heading(self):
        """Names of the columns, as they are read."""
        names = [str(name).replace("_", " ") for name in self.frame.columns]
        return [name.replace("auroc", "AUROC") for name in names]

    @property
    def rows(self):
        """Cells, each a text and whether it is a number."""
        names = [str(name) for name in self.frame.columns]
        return [
            [
                (_cell(value, name), _is_number(value))
                for value, name in zip(row, names, strict=True)
            ]
            for row in self.frame.itertuples(index=False, name=None)
        ]


@dataclass(frozen=True)
class Figure:
    """A figure as an SVG in a data address.

    Parameters
    ----------
    address : str
        ``data:image/svg+xml;base64,...``.
    caption : str
        What is to be seen; stands below the figure, and for it where it cannot be shown.
    """

    address: str = field(repr=False)
    caption: str
    kind: str = field(default="figure", init=False)

    @classmethod
    def drawn(cls, plot, *what, caption, **how):
        """Draw with a function of :mod:`probes.plotting`, on a figure of its own.

        Parameters
        ----------
        plot : callable
            Gets ``what``, an empty matplotlib Figure, and ``how``.
        *what, **how
            What is drawn.
        caption : str
        """
        figure = require("matplotlib.figure", extra="plot", purpose="plotting").Figure()
        plot(*what, figure, **how)
        return cls(
            "data:image/svg+xml;base64," + base64.b64encode(_as_svg(figure)).decode(), caption
        )


def _as_svg(figure):
    """Write a figure as SVG, the same bytes for the same figure."""
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "featstore", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    name : str
        Its anchor.
    title : str
    parts : tuple
        :class:`Text`, :class:`Note`, :class:`Code`, :class:`Table` and :class:`Figure`, in order.
    """

    name: str
    title: str
    parts: tuple


@dataclass(frozen=True)
class Report:
    """A page of sections.

    Parameters
    ----------
    title : str
    subtitle : str
        What it was made from, and when.
    sections : tuple of Section

    Examples
    --------
    >>> part = Section("models", "Models", (Text("one <b>model</b>"),))
    >>> "one &lt;b&gt;model&lt;/b&gt;" in Report("Toy", "made by hand", (part,)).html()
    True
    """

    title: str
    subtitle: str
    sections: tuple

    def html(self):
        """Return the page.

        Raises
        ------
        MissingExtraError
            If jinja2 is not installed.
        """
        from importlib.resources import files

        jinja2 = require("jinja2", extra="plot", purpose="a report")
        environment = jinja2.Environment(
            autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        template = files("probes.report").joinpath(TEMPLATE).read_text(encoding="utf-8")
        return environment.from_string(template).render(report=self)

    def save(self, path):
        """Write the page, whole or not at all."""
        write_text(self.html(), Path(path))


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value, column):
    """Write a cell, numbers as their column asks for.

    Examples
    --------
    >>> _cell(0.05, "size"), _cell(1.0, "auroc_mean"), _cell(0.00001, "p"), _cell(1234.5, "n_train")
    ('0.05', '1.000', '< 0.0001', '1,234.5')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not _is_number(value):
        return str(value)
    if math.isnan(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if column == "size":
        return f"{value:g}"
    if column.startswith("n_"):
        return f"{value:,.1f}".removesuffix(".0")
    if column == "p" or column.startswith("p_") or column.endswith("_p"):
        return "< 0.0001" if value < 0.0001 else f"{value:.2g}"
    return f"{value:.3f}"
