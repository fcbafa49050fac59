"""The paper's experiments and what its design hides, for one dataset, into a folder.

Every step says what it does and leaves a file; run again, it goes on with what is there and equal.
"""

import hashlib
import importlib.util
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.audit import audit
from probes.audit.windows import column_of
from probes.comparing import compare
from probes.domainprobe import domain_probe
from probes.errors import AuditError, OneClassError, ProbesError, ResultsError, SplitError
from probes.leakage import leakage_cost
from probes.report.folder import write_remarks, write_table, write_text
from probes.results import Results
from probes.splits import PRESETS, load_splits
from probes.trainings import fit_and_score

__all__ = ["reproduce"]

MADE_FROM = "made-from.json"  # what each table was made from, so that it is not made again

logger = logging.getLogger(__name__)


def reproduce(
    sources,
    annotations,
    folder,
    *,
    repeats=None,
    train=None,
    seed=42,
    beside=(),
    windows=None,
    draws=1000,
    say=logger.info,
    **parameters,
):
    """Run both experiments of the paper on a dataset, with all that belongs to them.

    Parameters
    ----------
    sources : sequence of Source
        Embeddings of the dataset, each with ``model`` and ``digest``.
    annotations : LabelTable
        The dataset; its columns ``domain``, ``slide``, ``x`` and ``y`` are used where they are
        there.
    folder : path-like
        Where everything is written, and what is there is read; made if it is missing.
    repeats : int, optional
        Of both experiments; the paper's five by default.
    train : sequence of float, optional
        Sizes of the first experiment; the paper's four by default.
    seed : int
        Of all draws.
    beside : sequence of path-like
        Results on the same splits that are added, such as those of a network.
    windows : dict or None
        ``patch_px``, ``mpp`` and the like, as for :func:`probes.audit`; None where it is not known
        what a patch covers, and then nothing is audited.
    draws : int
        Of the bootstrap of comparisons.
    say : callable
        Is told, in one line each, what is done and what is not.
    **parameters
        Of the probe, as for :class:`probes.LogisticProbe`; the paper's by default.

    Returns
    -------
    Results
        Of both experiments.

    Raises
    ------
    SplitError
        If splits cannot be drawn, or those in the folder are of another dataset.
    ResultsError
        If results to put beside are on other splits.

    Notes
    -----
    The folder gets ``sizes.json`` and ``domains.json`` (the splits), ``results/`` (see
    :meth:`probes.Results.save`), and the tables of :data:`probes.report.folder.TABLES`, each with
    what is to be said of it in a text file beside it. A draw that misses a class is drawn again. A
    table that cannot be made is left out, and its text file says why.
    """
    run = _Run(tuple(sources), annotations, Path(folder), seed, say, parameters)
    splits = {"learning_curve": _splits(run, "ganz2024-sizes", "sizes.json", repeats, train)}
    if run.n_domains > 1:
        splits["cross_domain"] = _splits(run, "ganz2024-domains", "domains.json", repeats)
    else:
        say(f"{annotations.name}: fewer than two domains; the second experiment is left out")
    results = _experiments(run, splits, beside)
    audited = {"splits": splits["learning_curve"], "windows": windows}
    _step(run, "comparison", _comparison, {"results": results, "draws": draws})
    _step(run, "audit", _audit, audited)
    _step(run, "leakage", _leakage, audited)
    _step(run, "domain-probe", _domain_probe, {"repeats": repeats})
    return results


@dataclass(frozen=True, eq=False)
class _Run:
    """What every step needs."""

    sources: tuple
    annotations: object
    folder: Path
    seed: int
    say: object
    parameters: dict

    @property
    def n_domains(self):
        """Number of domains; 0 where the table has no such column."""
        domains = column_of(self.annotations, "domain")
        return 0 if domains is None else len(np.unique(domains))


# ---- splits and experiments


def _splits(run, name, file, repeats, train=None):
    """Take the splits of a preset from the folder, or draw and keep them."""
    path = run.folder / file
    if path.exists():
        splits = load_splits(path)
    else:
        preset, asked = PRESETS[name], {"repeats": repeats, "train": train}
        options = preset.options | {key: value for key, value in asked.items() if value}
        splits = preset.make(run.annotations, **options, one_class="redraw", seed=run.seed)
        run.folder.mkdir(parents=True, exist_ok=True)
        splits.save(path)
    run.say(f"{path}: {len(splits)} splits, {splits.rule}, seed {splits.seed}")
    return splits


def _experiments(run, splits, beside):
    """Fit what is not there, and put results of others beside."""
    place = run.folder / "results"
    for path in beside:
        _put_beside(run, path, splits, place)
    keeps_scores = importlib.util.find_spec("pyarrow") is not None
    if not keeps_scores:
        run.say("pyarrow is not installed: no per-annotation scores are kept, nor tested")
    fitted = fit_and_score(
        run.sources,
        run.annotations,
        splits,
        place=place,
        keep_scores=keeps_scores,
        say=run.say,
        **run.parameters,
    )
    run.say(f"{place}: {len(fitted)} rows of {len(run.sources)} models")
    return _with_others(fitted, Results.load(place), splits)


def _put_beside(run, path, splits, place):
    others = Results.load(path).where(dataset=run.annotations.name)
    known = _digests(splits)
    elsewhere = {row["split"] for row in others.rows} - known
    if not len(others) or elsewhere:
        raise ResultsError(
            f"{path} holds {len(others)} rows of {run.annotations.name!r}, on {len(elsewhere)} "
            f"other splits than those in {run.folder}; train on its sizes.json or domains.json"
        )
    others.add_to(place)
    run.say(f"{path}: {len(others)} rows put beside")


def _with_others(fitted, there, splits):
    """Add results of models that are not fitted here, such as networks, on the same splits."""
    here, known = {row["model"] for row in fitted.rows}, _digests(splits)
    names = {row["model"] for row in there.rows} - here
    return fitted.merged(there.where(model=names, split=known, experiment=set(splits)))


def _digests(splits):
    return {split.digest for members in splits.values() for split in members}


# ---- what belongs to them


def _step(run, name, make, given):
    """Make a table, unless it was made from the same; say why where it cannot be made."""
    made, path = _made_from(run), run.folder / f"{name}.csv"
    digest = _digest(run, given)
    if made.get(name) == digest and path.exists():
        run.say(f"{path} is there, made from the same")
        return
    try:
        remarks = make(run, **given)
    except ProbesError as error:
        path.unlink(missing_ok=True)
        remarks = [f"Left out: {error}."]
        run.say(f"{name}: {remarks[0]}")
        made.pop(name, None)
    else:
        run.say(str(path))
        made[name] = digest
    write_remarks(remarks, run.folder, name)
    write_text(json.dumps(made, indent=1), run.folder / MADE_FROM)


def _made_from(run):
    path = run.folder / MADE_FROM
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _digest(run, given):
    """SHA-256 over what a table is made from."""
    said = {name: _told(value) for name, value in given.items()}
    said["sources"] = [(source.model, source.digest) for source in run.sources]
    said |= {"dataset": run.annotations.digest, "seed": run.seed, "probe": run.parameters}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _told(value):
    """Give what a value is, as JSON."""
    if isinstance(value, Results):
        return hashlib.sha256(value.to_frame().to_csv(index=False).encode()).hexdigest()
    return getattr(value, "digest", value)


def _write(run, frame, name):
    write_table(frame, run.folder, name, dataset=run.annotations.name)


def _comparison(run, results, draws):
    groups = column_of(run.annotations, "slide")
    by = None if groups is None else "slide"
    found = compare(results, run.annotations, by=by, draws=draws, seed=run.seed)
    _write(run, found.splits, "comparison-splits")
    _write(run, found.repeats, "comparison")
    return [found.note, f"Correction for many comparisons: {found.correction}."]


def _audit(run, splits, windows):
    found = _audited(run, splits, windows, source=run.sources[0])
    write_text(json.dumps(found.to_dict()), run.folder / "audit.json")
    _write(run, found.summary("domain"), "audit-by-domain")
    _write(run, found.summary("size"), "audit")
    settings = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    unknown = [f"{name}: not audited, {why}" for name, why in found.not_audited.items()]
    return [f"Audited with {settings}.", *unknown]


def _audited(run, splits, windows, source=None):
    if windows is None:
        raise AuditError(
            f"{run.annotations.name!r} holds patch files, and what each covers of its slide is not "
            "known; say so with --patch-px and --mpp"
        )
    return audit(run.annotations, splits, source=source, **windows)


def _leakage(run, splits, windows):
    if column_of(run.annotations, "slide") is None:
        raise AuditError(f"{run.annotations.name!r} has no column 'slide' to group splits by")
    found = _audited(run, splits, windows)
    thin, remarks = _thinnable(found, splits)
    cost = leakage_cost(
        run.sources,
        run.annotations,
        splits,
        found=found,
        drop=("overlapping",) if thin else (),
        thin=thin,
        place=run.folder / "leakage",
        say=run.say,
        **run.parameters,
    )
    _write(run, cost.summary(), "leakage-summary")
    _write(run, cost.to_frame(), "leakage")
    return remarks


def _thinnable(found, splits):
    """Parts that can do without overlapping patches, and why others cannot."""
    thin, remarks = [], []
    for part in ("train", "test"):
        try:
            found.without(splits, "overlapping", thin=part)
        except (SplitError, OneClassError) as error:  # in a small dataset nearly all overlap
            remarks.append(f"The design without overlapping patches is left out: {error}.")
        else:
            thin.append(part)
    return thin, remarks


def _domain_probe(run, repeats):
    if run.n_domains < 2:
        raise SplitError(f"{run.annotations.name!r} has fewer than two domains to tell apart")
    group = None if column_of(run.annotations, "slide") is None else "slide"
    found = domain_probe(
        run.sources,
        run.annotations,
        group=group,
        repeats=repeats or PRESETS["ganz2024-domains"].options["repeats"],
        seed=run.seed,
        place=run.folder / "domain-probe",
        say=run.say,
        **run.parameters,
    )
    _write(run, found.summary(), "domain-probe")
    return [] if group else ["Drawn by annotation: cells of a slide may be on both sides."]
