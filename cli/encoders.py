"""The verb encoders."""

import shutil
import textwrap

import click

from featstore_cli.options import format_options
from featstore_cli.render import emit

# Below these widths the list leaves out two columns each time, and breaks the lines of others.
WIDE_CHARS, NARROW_CHARS = 150, 98
# In a pipe no terminal tells how wide it is: nothing is left out.
NO_TERMINAL = (10_000, 24)


@click.command()
@click.argument("key", required=False)
@format_options
def encoders(key, form):
    """List the encoders known by name, or show all that is known of the encoder KEY.

    The last column says what has to be done before this machine can load the weights; nothing
    asks a hub.
    """
    if key is not None:
        _show(key, form)
        return
    from featstore.encoders.registry import ELSEWHERE, ENCODERS

    if form is not None:
        import pandas as pd

        facts = [_facts(row) for row in ENCODERS.values()]
        facts += [_foreign_facts(row) for row in ELSEWHERE.values()]
        if form == "csv":
            facts = [{name: _in_a_cell(value) for name, value in row.items()} for row in facts]
        emit(pd.DataFrame(facts).convert_dtypes(), form)  # whole numbers stay whole beside gaps
        return
    width = shutil.get_terminal_size(NO_TERMINAL).columns
    emit(_list(ENCODERS.values(), width))
    click.echo("\nNot builds of timm: install, extract with that, then 'featstore import'")
    emit(_foreign_list(ELSEWHERE.values(), width))


def _list(rows, width):
    import pandas as pd

    frame = pd.DataFrame([_line(row) for row in rows])
    if width < WIDE_CHARS:
        frame = frame.drop(columns=["pooling", "precision"])
        frame["terms"] = [_wrapped(text, 16) for text in frame["terms"]]
        frame["weights"] = [_wrapped(text, 25) for text in frame["weights"]]
    if width < NARROW_CHARS:
        frame = frame.drop(columns=["parameters_M", "um_per_px"])
    return frame


def _line(row):
    return {
        "encoder": row.key,
        "dim": row.spec.dim,
        "parameters_M": round(row.n_parameters / 1e6, 1),
        "um_per_px": "-" if row.mpp is None else f"{row.mpp:g}",
        "pooling": row.spec.pooling,
        "precision": row.precision,
        "terms": row.spec.terms,
        "weights": _here(row),
    }


def _foreign_list(rows, width):
    import pandas as pd

    lines = [
        {
            "encoder": row.key,
            "dim": row.dim,
            "what_to_install": _wrapped(row.install, max(width - 24, 30)),
            "weights": row.home,
        }
        for row in rows
    ]
    frame = pd.DataFrame(lines)
    return frame if width >= WIDE_CHARS else frame.drop(columns="weights")


def _here(row):
    from featstore.encoders.weights import find_weights

    found = find_weights(row)
    if found is not None:
        return f"here ({found[1]})"
    if not row.hub:
        return row.spec.weights_from
    return {
        "open": "to get with --download",
        "login": "to get with --download after login",
        "gated": "to ask for at the hub, then --download",
    }[row.access]


def _show(key, form):
    import pandas as pd

    from featstore.encoders.registry import ELSEWHERE, registered

    facts = _foreign_facts(ELSEWHERE[key]) if key in ELSEWHERE else _facts(registered(key))
    texts = [(name, _text(value)) for name, value in facts.items() if value not in ("", (), {})]
    left = shutil.get_terminal_size(NO_TERMINAL).columns - max(len(name) for name, _ in texts) - 2
    wrapped = [(name, _wrapped(text, max(left, 30))) for name, text in texts]
    columns = ["field", "value"]
    emit(pd.DataFrame(wrapped, columns=columns), form, rows=pd.DataFrame(texts, columns=columns))


def _text(value):
    if isinstance(value, dict):
        return ", ".join(f"{name}={part!r}" for name, part in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


def _in_a_cell(value):
    if isinstance(value, dict | tuple | list | str):
        return _text(value).replace("\n", "; ")
    return value


def _wrapped(text, width):
    """Break lines between words alone: paths and addresses stay whole."""
    wrap = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) for line in text.splitlines())


def _facts(row):
    """All fields of the registry, and what is on this machine."""
    from featstore.encoders.weights import find_weights

    facts = row.spec.to_json()
    for name in ("mpp", "precision", "weights"):  # of a run, not of the encoder
        del facts[name]
    facts |= {"recommended_mpp": row.mpp, "recommended_precision": row.precision}
    facts |= {"parts": row.parts, "parts_on_request": row.parts_on_request}
    names = ("transform", "hub", "revision", "file", "sha256", "access")
    names += ("n_parameters", "n_tokens", "n_prefix_tokens", "source")
    facts |= {name: getattr(row, name) for name in names}
    found = find_weights(row)
    facts["weights_here"] = _here(row)
    facts["weights_file"] = "" if found is None else str(found[0])
    facts["to_get_weights"] = "" if found is not None else "\n".join(_steps(row))
    return facts


def _steps(row):
    """List what has to be done before the weights are on this machine."""
    if not row.hub:
        return [row.spec.weights_from]
    steps = []
    if row.access == "gated":
        steps.append(f"ask for access at https://huggingface.co/{row.hub}")
    if row.access != "open":
        steps.append("log in on this machine: hf auth login")
    steps.append(f"fetch: featstore extract STORE --dataset D --model {row.key} --download")
    file = f"{row.file} of {row.hub}{f' at commit {row.revision}' if row.revision else ''}"
    return [*_numbered(steps), f"or bring {file} from elsewhere, and give it: --weights FILE"]


def _numbered(steps):
    if len(steps) == 1:
        return steps
    return [f"{number}. {step}" for number, step in enumerate(steps, 1)]


def _foreign_facts(row):
    steps = [f"install: {row.install}", f"load: {row.load}", "extract with it"]
    steps.append("bring the embeddings in: featstore import")
    return {
        "key": row.key,
        "dim": row.dim,
        "terms": row.terms,
        "weights_from": row.home,
        "weights_here": "not a build of timm",
        "to_get_weights": "\n".join(_numbered(steps)),
    }


COMMANDS = {"encoders": encoders}
