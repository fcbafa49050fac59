"""Per-annotation scores: what every training said of every annotation that it was tested on.

One long table, texts as categories: 45 trainings on MIDOG are half a million rows.
"""

import numpy as np

from probes.protocols import as_texts

__all__ = [
    "SCORE_COLUMNS",
    "TRAINING",
    "merged_scores",
    "score_frame",
    "stacked",
    "trainings_of",
    "without",
]

# What tells trainings apart: labels by their digest too, since a split is of IDs alone.
TRAINING = ("model", "dataset", "dataset_digest", "experiment", "split", "encoder", "recipe")

# Columns of scores, before one 'p <class>' per class.
SCORE_COLUMNS = (*TRAINING, "id", "label")


def score_frame(score, training):
    """Per-annotation scores of one training as a DataFrame with :data:`SCORE_COLUMNS`.

    Parameters
    ----------
    score : Score
        What was said of the whole test part.
    training : dict
        A row of this training; of its cells those of :data:`TRAINING` are taken.
    """
    import pandas as pd

    n = len(score.ids)
    columns = {
        name: pd.Categorical.from_codes(np.zeros(n, int), [training[name]]) for name in TRAINING
    }
    columns |= {"id": score.ids, "label": pd.Categorical(as_texts(score.labels))}
    columns |= {
        f"p {name}": score.probabilities[:, place]
        for place, name in enumerate(np.asarray(score.classes).tolist())
    }
    return pd.DataFrame(columns)


def stacked(frames):
    """Put frames of scores below each other, texts as categories; None where there is none."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    frames = [frame for frame in frames if frame is not None and len(frame)]
    if len(frames) < 2:
        return frames[0] if frames else None
    if len({frame["id"].dtype.kind in "iu" for frame in frames}) > 1:  # datasets of both kinds
        frames = [frame.assign(id=frame["id"].astype(str)) for frame in frames]
    texts = {
        name: union_categoricals([frame[name] for frame in frames]) for name in (*TRAINING, "label")
    }
    rest = pd.concat([frame.drop(columns=list(texts)) for frame in frames], ignore_index=True)
    numbers = {name: rest[name] for name in rest}
    order = [*SCORE_COLUMNS, *[name for name in numbers if name != "id"]]
    return pd.DataFrame(texts | numbers)[order]


def trainings_of(scores):
    """Trainings that a frame of scores holds."""
    if scores is None:
        return set()
    return set(scores[list(TRAINING)].drop_duplicates().itertuples(index=False, name=None))


def merged_scores(scores, others):
    """Put two frames together (None where there are no scores); of equal trainings the newer."""
    newer = trainings_of(others)
    return stacked([without(scores, newer), others])


def without(scores, trainings):
    """Leave out the scores of some trainings."""
    if scores is None or not trainings & trainings_of(scores):
        return scores
    codes = scores.groupby(list(TRAINING), observed=True, sort=False)
    kept = [frame for name, frame in codes if name not in trainings]
    return stacked(kept)
