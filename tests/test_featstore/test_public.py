import subprocess
import sys

import featstore
import probes

FEATSTORE = {
    "AnnotationTable",
    "CachedPatches",
    "EmbeddingInfo",
    "Embeddings",
    "EncoderSpec",
    "ImageFolder",
    "Patches",
    "PatchesInfo",
    "Store",
    "__version__",
    "create",
    "errors",
    "open",
}
PROBES = {
    "AUDIT_COLUMNS",
    "RESULT_COLUMNS",
    "Audit",
    "Comparison",
    "DomainMatrix",
    "DomainProbe",
    "KNNProbe",
    "LeakageCost",
    "LearningCurve",
    "LogisticProbe",
    "RegularizationPath",
    "Results",
    "Score",
    "SimpleShot",
    "Split",
    "Splits",
    "audit",
    "compare",
    "cross_domain",
    "domain_probe",
    "errors",
    "evaluate",
    "fit_and_score",
    "grouped",
    "leakage_cost",
    "learning_curve",
    "leave_one_domain_out",
    "load_splits",
    "metrics",
    "monte_carlo",
    "predefined",
    "preset",
    "published",
    "regularization_path",
    "result_row",
    "result_rows",
    "single_domain",
}
ERRORS = {
    "AlreadyInStoreError",
    "AnnotationError",
    "DamagedChunkError",
    "DigestError",
    "EncoderError",
    "FeatstoreError",
    "ImageError",
    "KnownCountsWarning",
    "UpsampledPatchesWarning",
    "LockedError",
    "MissingExtraError",
    "NotInStoreError",
    "StoreError",
    "require",
}


def test_the_public_surface_is_what_we_promise():
    """A name that comes or goes here comes or goes for users: say so in CHANGELOG.md."""
    assert set(featstore.__all__) == FEATSTORE
    assert set(probes.__all__) == PROBES
    assert set(featstore.errors.__all__) == ERRORS


def test_every_public_name_is_there_and_documented():
    for package in (featstore, probes):
        for name in set(package.__all__) - {"__version__"}:
            assert getattr(package, name).__doc__, name


def test_a_name_that_is_not_there_is_an_attribute_error():
    for package in (featstore, probes):
        assert not hasattr(package, "no_such_name")


def test_errors_are_also_the_built_in_that_fits():
    errors = featstore.errors
    for error, built_in in [
        (errors.StoreError, ValueError),
        (errors.NotInStoreError, LookupError),
        (errors.AnnotationError, ValueError),
        (errors.ImageError, OSError),
        (errors.EncoderError, ValueError),
        (errors.MissingExtraError, ImportError),
        (probes.errors.ProbesError, ValueError),
        (probes.errors.MissingExtraError, ImportError),
    ]:
        assert issubclass(error, built_in)


LIGHT = """
import sys
import {module}
heavy = {{"torch", "timm", "sklearn", "pandas", "matplotlib", "zarr"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_either_package_loads_nothing_heavy():
    for module in ("featstore", "probes", "featstore_cli.main"):
        subprocess.run([sys.executable, "-c", LIGHT.format(module=module)], check=True)
