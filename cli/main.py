"""The command group. Verbs are imported when they are called, so that ``--help`` is quick."""

import importlib
import sys
import warnings

import click

from featstore.version import __version__

__all__ = ["featstore", "run"]

# verb: (module, line of help); the order is the one in which a user meets them
VERBS = {
    "demo": ("demo", "Run all of it on data made here, offline."),
    "image": ("showing", "Show size, levels and um per pixel of an image file."),
    "add": ("datasets", "Add annotated cells, and where their images are, to a store."),
    "list": ("showing", "List datasets and embeddings in a store."),
    "show": ("showing", "Show a dataset, its annotations, or where embeddings came from."),
    "verify": ("checking", "Check every byte of a store, and drop what is damaged."),
    "cut": ("cutting", "Cut the patches of a dataset once, for all encoders and the trainer."),
    "encoders": ("encoders", "List the encoders known by name, with their terms and weights."),
    "selfcheck": (
        "selfcheck",
        "Hold an encoder on this machine's device against itself on the CPU.",
    ),
    "extract": ("extraction", "Embed the patches of a dataset with an encoder."),
    "copy": ("sharing", "Copy or merge datasets and embeddings into another store."),
    "pack": ("sharing", "Pack a store into one file that opens as it is."),
    "export": ("exchange", "Write embeddings as HDF5, Parquet or NumPy files."),
    "import": ("exchange", "Read embeddings of other tools into a store."),
    "diff": ("comparing", "Show what differs between two arrays of embeddings."),
    "split": ("splitting", "Draw train, validation and test annotations into a file."),
    "audit": ("auditing", "Count what the parts of splits share, and make clean ones."),
    "probe": ("probing", "Fit and test one linear probe."),
    "curve": ("experiments", "AUROC by size of the training set, for one or more models."),
    "domains": ("experiments", "AUROC by training and test domain."),
    "domain-probe": ("domainprobing", "How well the domain can be read off the embeddings."),
    "compare": ("comparing_models", "Test whether models differ, on kept results."),
    "train": ("training", "Train a network end to end on the splits that probes use."),
    "reproduce": ("reporting", "Run the paper's experiments on all models, then the report."),
    "report": ("reporting", "Put results together into one HTML page."),
}


class _Verbs(click.Group):
    """A group that knows its verbs by name and one line, and loads them on call."""

    def list_commands(self, ctx):
        return list(VERBS)

    def get_command(self, ctx, name):
        if name not in VERBS:
            return None
        module = importlib.import_module(f"featstore_cli.{VERBS[name][0]}")
        return module.COMMANDS[name]

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except Exception as error:
            if type(error).__module__ in ("featstore.errors", "probes.errors"):
                raise click.ClickException(" ".join(str(error).split())) from error
            if isinstance(error, MemoryError):
                raise click.ClickException(f"there is not memory enough: {error}") from error
            if isinstance(error, BrokenPipeError):  # as under 'head', which click ends quietly
                raise
            if isinstance(error, OSError):  # a read-only folder, a full disk
                raise click.ClickException(
                    f"{error.filename}: {error.strerror or error}"
                ) from error
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(130) from None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="featstore")
def featstore():
    """Embeddings of annotated cells: extract once, keep, probe at will."""


def run():
    """Run the command line; what the console script calls."""
    warnings.showwarning = _show_warning
    featstore(prog_name="featstore")


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"Warning: {message}", file=sys.stderr)  # noqa: T201
