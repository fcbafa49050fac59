"""What a network has seen in training of the annotations that its embeddings are judged on."""

import click
import numpy as np

__all__ = ["is_of", "say_seen"]


def is_of(trained_on, annotations):
    """Whether a network was trained on some of these annotations.

    Parameters
    ----------
    trained_on : dict or None
        As the provenance of embeddings has it, from whatever store; None of other encoders.
    annotations : AnnotationTable
        Its name or its digest tells: labels may have been corrected, rows added.
    """
    if not isinstance(trained_on, dict):
        return False
    names = trained_on.get("dataset"), trained_on.get("dataset_digest")
    return annotations.name == names[0] or annotations.digest == names[1]


def say_seen(sources, annotations, tested, splits):
    """Warn of embeddings whose network was trained on annotations that are tested here.

    Parameters
    ----------
    sources : sequence of Embeddings
    annotations : AnnotationTable
    tested, splits : sequence of Split
        Those that are probed, and all of their file, among which the network's own may be.
    """
    for source in sources:
        trained_on = source.provenance.run.get("trained_on")
        if not is_of(trained_on, annotations):
            continue
        own = [split for split in splits if split.digest == trained_on.get("split")]
        n = sum(_tests_what_was_seen(split, own) for split in tested)
        if n:
            click.echo(
                f"{source.model} is a network trained on some of these annotations: {n} of "
                f"{len(tested)} splits test it on what it has seen, so its values are too good; "
                "probe it on the split that it was trained on",
                err=True,
            )


def _tests_what_was_seen(split, own):
    """Whether a split tests what the network's own split trains on; yes, where that is unknown."""
    if not own:
        return True
    return bool(np.isin(split.test, np.concatenate([own[0].train, own[0].val])).any())
