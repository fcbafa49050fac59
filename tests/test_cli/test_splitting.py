"""split: rules and presets from the command line, and what it refuses."""

import json
import os

import numpy as np
import pytest

import featstore
import probes
from featstore.store.writer import add_annotations

SHARES = {"test": 0.3, "val": 0.2, "train": (0.5, 1.0), "repeats": 2}
WORDS = ["--test", 0.3, "--val", 0.2, "--train", "1,0.5", "--repeats", 2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with 400 cells on 40 slides in 4 domains; the column 'fold' names parts of slides."""
    number = np.arange(400)
    slide = number // 10
    cells = featstore.AnnotationTable(
        "cells",
        number + 7,
        np.where(np.random.default_rng(2).random(400) < 0.4, "mitotic figure", "look-alike"),
        {
            "slide": np.char.mod("%03d", slide),
            "domain": np.array(list("ABCD"))[slide % 4],
            "fold": np.array(["train", "test", "train", "train", "extern"])[slide // 4 % 5],
        },
    )
    path = tmp_path_factory.mktemp("store") / "lab.zarr"
    featstore.create(path)
    add_annotations(path, cells)
    return path


@pytest.fixture
def drawn(store, ok, tmp_path):
    """Run split, and give what the file holds."""

    def run_split(*words, out="s.json"):
        ok("split", store, "--dataset", "cells", "--out", tmp_path / out, *words)
        return probes.load_splits(tmp_path / out)

    return run_split


@pytest.mark.parametrize(
    ("words", "maker", "options"),
    [
        (WORDS, "monte_carlo", SHARES),
        ([*WORDS, "--not-nested"], "monte_carlo", {**SHARES, "nested": False}),
        ([*WORDS, "--stratify", "label"], "monte_carlo", {**SHARES, "stratify": "label"}),
        ([*WORDS, "--group", "slide"], "grouped", {**SHARES, "group": "slide"}),
        ([*WORDS, "--rule", "grouped"], "grouped", SHARES),
        (["--rule", "single-domain"], "single_domain", {}),
        (
            ["--rule", "leave-one-domain-out", "--column", "domain", "--repeats", 2],
            "leave_one_domain_out",
            {"repeats": 2},
        ),
        (
            ["--column", "fold", "--map-part", "extern=", "--group", "slide", "--train", "0.5,1"],
            "predefined",
            {"column": "fold", "names": {"extern": ""}, "group": "slide", "train": (0.5, 1.0)},
        ),
        (
            ["--train", "0.015", "--one-class", "redraw", "--repeats", 40, "--seed", 3],
            "monte_carlo",
            {"train": (0.015,), "one_class": "redraw", "repeats": 40, "seed": 3},
        ),
    ],
)
def test_a_rule_draws_what_its_maker_does(drawn, store, words, maker, options):
    cells = featstore.open(store).annotations("cells")
    expected = getattr(probes, maker)(cells, **options)
    for out in ("s.json", "s.parquet"):
        assert drawn(*words, out=out).digest == expected.digest


@pytest.mark.parametrize("name", ["ganz2024-sizes", "ganz2024-sizes-by-slide", "ganz2024-domains"])
def test_a_preset_draws_the_experiment_of_its_name(drawn, store, name, run, tmp_path):
    cells = featstore.open(store).annotations("cells")
    if name == "ganz2024-domains":
        assert drawn("--preset", name).digest == probes.preset(name, cells).digest
        return
    refused = run(
        "split", store, "--dataset", "cells", "--out", tmp_path / "s.json", "--preset", name
    )
    assert "size 0.001: train=0.001 leaves 0 of 400 annotations to train on" in refused.err


def test_a_file_of_slides_names_the_parts(drawn, store, tmp_path):
    cells = featstore.open(store).annotations("cells")
    pairs = sorted(set(zip(cells.slides.tolist(), cells.column("fold").tolist(), strict=True)))
    rows = [f"{int(slide)}.tiff;{part}" for slide, part in pairs]
    (tmp_path / "parts.csv").write_text("\n".join(["image;set", *rows, "99.tiff;test"]))
    words = ["--file", tmp_path / "parts.csv", "--map-part", "extern=test", "--unknown", "ignore"]
    expected = probes.predefined(cells, column="fold", names={"extern": "test"})
    assert drawn(*words)[0].digest == expected[0].digest
    named = ["--key", "image", "--part", "set", "--by", "slide"]
    assert drawn(*words, *named)[0].digest == expected[0].digest


def test_the_table_shows_domains_and_redraws_where_there_are_any(store, ok, tmp_path):
    def heading(*words):
        return ok("split", store, "--dataset", "cells", "--out", tmp_path / "s.json", *words)

    plain = heading("--train", "1").lines
    assert plain[0].split("  ")[-1].strip() == "digest"
    assert " ".join(plain[0].split()) == "repeat size n train n val n test digest"
    assert len(plain) == 2 + 5
    by_domain = heading("--rule", "leave-one-domain-out", "--repeats", "1").lines
    assert " ".join(by_domain[0].split()) == "repeat train domain n train n val n test digest"
    assert by_domain[2].split()[:4] == ["0", "all", "but", "A"]
    again = heading("--train", "0.015", "--one-class", "redraw", "--repeats", "40", "--seed", "3")
    assert " ".join(again.lines[0].split()) == "repeat size n train n val n test redraws digest"


def test_programs_get_every_column(store, ok, tmp_path):
    words = ["split", store, "--dataset", "cells", "--train", "1", "--out", tmp_path / "s.json"]
    rows = json.loads(ok(*words, "--json").out)
    splits = probes.load_splits(tmp_path / "s.json")
    assert rows == json.loads(splits.to_frame().to_json(orient="records"))
    assert rows[0]["digest"] == splits[0].digest
    assert rows[0]["n_train"] == rows[0]["n_train look-alike"] + rows[0]["n_train mitotic figure"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "ganz2024-sizes", "--train", "1"], "--preset says all but --one-class and"),
        (["--rule", "single-domain", "--train", "1"], "--train is not an option of the rule sing"),
        (["--rule", "single-domain", "--not-nested"], "--not-nested is not an option of the rule"),
        (["--map-part", "a=test"], "--map-part is not an option of the rule monte-carlo"),
        (["--column", "fold", "--test", "0.1"], "--test is not an option of the rule predefined"),
        (["--column", "fold", "--map-part", "extern"], "'extern' is not NAME=PART, such as"),
        (["--one-class", "skip"], "'skip' is not one of 'refuse', 'redraw', 'keep'"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_exit_code_2(
    store, run, tmp_path, words, message
):
    outcome = run("split", store, "--dataset", "cells", "--out", tmp_path / "s.json", *words)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
    assert not os.path.exists(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "ganz"], "preset 'ganz' is unknown; there are ganz2024-sizes, "),
        (["--column", "fold"], "column 'fold' names the parts extern (80 annotations); parts are"),
        (["--column", "part"], "dataset 'cells' has no column 'part'; it has id, label, slide"),
        (["--rule", "predefined"], "come from column=NAME or from file=PATH; give one"),
        (["--file", "none.csv"], "cannot read the parts none.csv: No such file"),
        (
            ["--train", "0.015", "--repeats", "40", "--seed", "3"],
            "; take a larger size or another --seed, or --one-class redraw",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_line(store, run, tmp_path, words, message):
    outcome = run("split", store, "--dataset", "cells", "--out", tmp_path / "s.json", *words)
    assert outcome.code == 1
    assert outcome.err.startswith("Error: ")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not os.path.exists(tmp_path / "s.json")


def test_splits_of_a_dataset_that_has_grown_are_refused_and_what_is_new_is_named(
    filled_store, run, tmp_path
):
    store, _ = filled_store
    cells = store.annotations("cells")
    probes.monte_carlo(cells.take(cells.ids[1:]), train=[1.0]).save(tmp_path / "s.json")
    outcome = run(
        "curve", store.path, "--dataset", "cells", "--splits", tmp_path / "s.json", "--csv"
    )
    assert outcome.code == 1
    assert f"1 of 'cells' are not in the splits ({cells.ids.tolist()[0]!r})" in outcome.err
