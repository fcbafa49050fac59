"""The page is parsed as a browser would; tables and folders are read back."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from jinja2 import UndefinedError

import probes
from probes.errors import ResultsError, SplitError
from probes.report import (
    Figure,
    Note,
    Report,
    ResultFolder,
    Section,
    Table,
    Text,
    audit_section,
    comparison_section,
    domain_probe_section,
    domain_table,
    domains_section,
    latex_table,
    leakage_section,
    markdown_table,
    reproduce,
    sizes_section,
    warnings_section,
    write_paper,
)
from probes.results import Results
from tests.test_probes.page import Page
from tests.test_probes.planted import curve, matrix, with_scores

EVIL = "<script>alert(1)</script>\"'&"


def page_of(*sections):
    return Page(Report("Title", "subtitle", sections).html())


def results_of(*models, **how):
    labels = [0, 1] * 40
    rows = curve(models, **how) + matrix(models)
    return with_scores(rows, labels, np.where(labels, 0.75, 0.25))


# ---- the page


def test_a_page_asks_nothing_of_a_network_and_runs_no_script():
    page = page_of(sizes_section(results_of("uni")), domains_section(results_of("uni")))
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "action")]
    assert len(addresses) == 2 + 4  # sections in the contents, and figures
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in addresses)
    metas = [value for name, value in page.attributes if name == "content"]
    assert any(value.startswith("default-src 'none'; img-src data:") for value in metas)
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_figures_are_svg_that_holds_no_address_either():
    page = page_of(sizes_section(results_of("uni")))
    source = next(value for name, value in page.attributes if name == "src")
    svg = base64.b64decode(source.partition(",")[2]).decode()
    assert svg.startswith("<?xml")
    assert "<script" not in svg
    assert set(re.findall(r'(?:xlink:)?href="([^"#]*)', svg)) <= {""}


def test_names_of_others_are_text_wherever_they_stand():
    results = results_of(EVIL, "uni")
    row = results.rows[0] | {"value": float("nan"), "reason": EVIL, "dataset": EVIL}
    results = Results((*results.rows, row), results.scores)
    frame = pd.DataFrame({EVIL: [EVIL]})
    text = Report(
        EVIL,
        EVIL,
        (
            Section("x", EVIL, (Text(EVIL), Note(EVIL), Table(frame, EVIL))),
            domains_section(results.where(dataset="midog")),
            warnings_section(results, [EVIL]),
        ),
    ).html()
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count("<script>alert(1)</script>") > 10
    assert {name for name, _ in page.attributes}.isdisjoint({"onerror", "alert(1)"})


def test_the_same_results_give_the_same_page():
    pages = [Report("t", "s", (sizes_section(results_of("uni")),)).html() for _ in range(2)]
    assert pages[0] == pages[1]


def test_every_figure_has_a_text_in_its_place():
    page = page_of(sizes_section(results_of("uni")), domains_section(results_of("uni")))
    texts = [value for name, value in page.attributes if name == "alt"]
    assert len(texts) == 4
    assert all(len(text) > 30 for text in texts)


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    bad = Section("x", "x", (Table(None, "a table of nothing"),))
    with pytest.raises(UndefinedError):
        Report("t", "s", (bad,)).save(path)
    assert path.read_text() == "old"
    Report("t", "s", ()).save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (sizes_section(Results()), "A learning curve is not among these results"),
        (domains_section(Results()), "A comparison of domains is not among these results"),
        (comparison_section(None, ["two models are needed"]), "two models are needed"),
        (audit_section(None), "An audit is not among these results"),
        (leakage_section(None, None, ["no slides"]), "no slides"),
        (domain_probe_section(None), "A domain probe is not among these results"),
    ],
    ids=lambda value: value.name if isinstance(value, Section) else "",
)
def test_a_section_says_what_is_missing(section, said):
    assert said in page_of(section).text


def test_without_scores_a_page_says_how_to_keep_them():
    text = page_of(sizes_section(Results(tuple(curve(["uni"]))))).text
    assert "No ROC and calibration curves: no per-annotation scores of learning_curve" in text


def test_warnings_name_what_did_not_converge_collapsed_or_has_no_value():
    assert (
        "All probes converged, none collapsed" in page_of(warnings_section(results_of("uni"))).text
    )
    rows = list(results_of("uni").rows)
    rows[0] |= {"converged": False}
    rows[1] |= {"collapsed": True}
    rows[2] |= {"value": float("nan"), "reason": "all 12 labels are 'a'"}
    text = page_of(warnings_section(Results(tuple(rows)), ["of another encoder"])).text
    for said in (
        "of another encoder",
        "solver is not sure of the optimum",
        "Collapsed probes",
        "all 12 labels are 'a'",
    ):
        assert said in text


# ---- Table 2


def test_table_2_has_our_numbers_and_the_published_ones_beside_them():
    table = domain_table(Results(tuple(matrix(["uni", "my-encoder"])))).set_index("model")
    # by hand: 0.9 and 0.92 on the diagonal of three, 0.7 and 0.72 off it; s.d. with n - 1
    assert table.loc["uni"].tolist() == [
        "0.91 ± 0.01",
        "0.71 ± 0.01",
        "6 + 12",
        "0.76 ± 0.03",
        "0.64 ± 0.05",
    ]
    assert table.loc["my-encoder"].tolist()[3:] == ["", ""]
    assert [name for name in table if "published" in name] == [
        "published, in domain",
        "published, out of domain",
    ]


def test_models_without_published_numbers_have_no_column_for_them():
    results = Results(tuple(matrix(["my-encoder"])))
    assert list(domain_table(results)) == ["model", "in domain", "out of domain", "n"]
    assert (
        "None of these models has a number in Ganz et al." in page_of(domains_section(results)).text
    )


def test_published_numbers_are_said_to_be_of_another_run_wherever_they_stand():
    results = Results(tuple(matrix(["uni"])))
    table = domain_table(results)
    page = page_of(domains_section(results))
    for text in (page.text, markdown_table(table), latex_table(table)):
        assert "another run, on MIDOG 2022" in text
        assert "Ganz et al." in text
        assert "Table 2" in text


def test_one_value_has_no_deviation_and_none_is_a_dash():
    rows = [
        each | ({"value": np.nan} if each["train_domain"] == each["test_domain"] else {})
        for each in matrix(["m"], repeats=1, domains=("A", "B"))
        if each["train_domain"] == "A"
    ]
    assert domain_table(Results(tuple(rows))).iloc[0].tolist() == ["m", "–", "0.70", "0 + 1"]


def test_markdown_keeps_names_from_being_markup():
    names = ["a|b", "*c*", "<b>d</b>", "e_f [g](h)", "i\nj"]
    text = markdown_table(domain_table(Results(tuple(matrix(names)))))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(names)
    for line in rows[2:]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 5
        assert not re.search(r"(?<!\\)[*<\[_`]", line)


def test_latex_keeps_names_from_being_commands():
    names = [r"a_b & c", r"\input{/etc/passwd}", "50 % of $x^2$ #1 {~}", "i\nj"]
    text = latex_table(domain_table(Results(tuple(matrix(names)))))
    rows = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert len(rows) == len(names)
    for line in rows:
        assert line.endswith("\\\\")
        assert len(re.findall(r"(?<!\\)&", line)) == 3
        assert "\\input" not in line
        bare = line.replace(r"$\pm$", "").removesuffix("\\\\")
        assert not re.search(r"(?<!\\)[%$#_]", bare)
    assert text.count("\\begin") == text.count("\\end") == 2


def test_the_papers_figures_and_table_are_written_for_a_manuscript(tmp_path):
    written = write_paper(results_of("uni"), tmp_path)
    names = {"figure-1.png", "figure-1.pdf", "figure-2.png", "figure-2.pdf"}
    assert {path.name for path in written} == names | {"table-2.md", "table-2.tex"}
    assert (tmp_path / "figure-2.pdf").read_bytes().startswith(b"%PDF")
    assert write_paper(Results(), tmp_path) == []


# ---- folders


def test_a_folder_is_read_with_all_the_results_in_it(tmp_path):
    (tmp_path / "inner").mkdir()
    Results(tuple(curve(["a"]))).save(tmp_path / "curve.csv")
    Results(tuple(matrix(["a"]))).save(tmp_path / "inner" / "results")
    (tmp_path / "notes.csv").write_text("x,y\n1,2\n")
    (tmp_path / "other.json").write_text("{}")
    found = ResultFolder.read(tmp_path)
    assert len(found.results) == 9 + 18
    assert found.left_aside == ()


def test_files_that_say_they_are_results_or_splits_and_are_not_are_left_aside_and_named(tmp_path):
    Results(tuple(curve(["a"]))).save(tmp_path / "curve.csv")
    (tmp_path / "old.csv").write_text("model,dataset,split,value\na,b,c,0.5\n")
    (tmp_path / "splits.json").write_text('{"format": "featstore-splits/2", "dataset": "x"}')
    found = ResultFolder.read(tmp_path)
    assert [row["model"] for row in found.results.rows] == ["a"] * 9
    assert [re.search(r"(\w+\.\w+)", line)[0] for line in found.left_aside] == [
        "old.csv",
        "splits.json",
    ]


def test_a_folder_without_results_is_refused_in_one_line(tmp_path):
    for path, said in ((tmp_path, "holds no results"), (tmp_path / "no", "there is no folder")):
        with pytest.raises(ResultsError, match=said) as error:
            ResultFolder.read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", ["", "dataset,finding\n1,2\n", "dataset,finding,against,size,share\na,b,c,x,y\n"]
)
def test_a_damaged_table_is_refused_with_what_to_do(tmp_path, content):
    Results(tuple(curve(["a"]))).save(tmp_path / "curve.csv")
    (tmp_path / "audit.csv").write_text(content)
    with pytest.raises(ResultsError, match=r"audit.csv is damaged.*delete it") as error:
        ResultFolder.read(tmp_path)
    assert "\n" not in str(error.value)


# ---- reproduce


@pytest.fixture
def lab(make_table, make_source, tmp_path):
    """Two models on a dataset with positions, slides and domains, and where to write."""
    table = make_table(600, n_slides=30)
    rng = np.random.default_rng(5)
    table.columns |= {name: rng.integers(0, 60_000, 600).astype(float) for name in "xy"}
    sources = []
    for number, signal in enumerate((1.5, 0.5)):
        source = make_source(table, signal=signal, seed=number)
        sources.append(
            probes.protocols.InMemory(source.ids, source.values, f"m{number}", f"sha256:{number}")
        )
    said = []
    how = {"repeats": 2, "train": (0.1, 1.0), "draws": 50, "say": said.append}
    how["C"] = 50.0  # of few dimensions, which the paper's own C would let collapse
    how["windows"] = {"patch_px": 224, "mpp": 0.25}
    return table, sources, tmp_path / "out", said, how


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dataset_is_taken_all_the_way_and_a_second_time_nothing_is_done(lab):
    table, sources, folder, said, how = lab
    results = reproduce(sources, table, folder, **how)
    assert len(results) == 2 * (2 * 2 + 2 * 3 * 3)
    there = {path.name for path in folder.iterdir()}
    assert there >= {"sizes.json", "domains.json", "results", "made-from.json"}
    found = ResultFolder.read(folder)
    assert set(found.tables) == {
        "comparison",
        "audit",
        "audit-by-domain",
        "leakage",
        "leakage-summary",
        "domain-probe",
    }
    assert {row["split"] for row in results.rows} == {
        split.digest for splits in found.splits.values() for split in splits
    }
    before = contents(folder)
    said.clear()
    again = reproduce(sources, table, folder, **how)
    assert contents(folder) == before
    assert again.to_frame().equals(results.to_frame())
    for model in ("m0", "m1"):
        assert f"10 of 10 trainings of {model} are there and equal; nothing is fitted" in said
    assert sum(line.endswith("is there, made from the same") for line in said) == 4


def test_a_run_that_ended_after_one_model_goes_on_with_the_next(lab, tmp_path):
    table, sources, folder, said, how = lab
    whole = reproduce(sources, table, tmp_path / "whole", **how)
    reproduce(sources[:1], table, folder, **how)
    said.clear()
    rest = reproduce(sources, table, folder, **how)
    assert "10 of 10 trainings of m0 are there and equal; nothing is fitted" in said
    columns = ["model", "experiment", "split", "test_domain", "value"]
    assert rest.to_frame()[columns].equals(whole.to_frame()[columns])
    assert ResultFolder.read(folder).tables["comparison"]["first"].unique().tolist() == ["m0"]


def test_what_cannot_be_made_is_left_out_with_the_reason(lab):
    table, sources, folder, said, how = lab
    del table.columns["domain"]
    reproduce(sources[:1], table, folder, **how | {"windows": None})
    found = ResultFolder.read(folder)
    assert not found.tables
    assert "a comparison needs two models" in found.remarks["comparison"][0]
    assert "what each covers of its slide is not known" in found.remarks["audit"][0]
    assert "fewer than two domains" in found.remarks["domain-probe"][0]
    assert any("the second experiment is left out" in line for line in said)
    assert {row["experiment"] for row in found.results.rows} == {"learning_curve"}
    assert (
        "what each covers of its slide"
        in page_of(audit_section(None, None, found.remarks["audit"])).text
    )


def test_results_of_a_network_stand_beside_where_they_are_on_the_same_splits(lab, tmp_path):
    table, sources, folder, _, how = lab
    first = reproduce(sources[:1], table, folder, **how)
    network = [row | {"model": "end-to-end net", "encoder": "sha256:n"} for row in first.rows]
    Results(tuple(network)).save(tmp_path / "network.csv")
    both = reproduce(sources[:1], table, folder, beside=[tmp_path / "network.csv"], **how)
    assert {row["model"] for row in both.rows} == {"m0", "end-to-end net"}
    assert ResultFolder.read(folder).tables["comparison"]["second"].unique() == ["end-to-end net"]
    other = [row | {"split": "sha256:other"} for row in network]
    Results(tuple(other)).save(tmp_path / "other.csv")
    with pytest.raises(ResultsError, match=r"other splits than those in .*train on its sizes.json"):
        reproduce(sources[:1], table, folder, beside=[tmp_path / "other.csv"], **how)


def test_a_folder_of_another_dataset_is_refused(lab, make_table, make_source):
    table, sources, folder, _, how = lab
    reproduce(sources[:1], table, folder, **how)
    other = make_table(500, seed=9)
    other.digest = "sha256:another"
    with pytest.raises(SplitError):
        reproduce([make_source(other)], other, folder, **how)


def test_planted_leakage_is_a_number_below_zero(lab):
    """Embeddings that know the slide, on slides of one class each, help only where slides leak."""
    table, _, folder, _, how = lab
    slides = table.column("slide")
    rng = np.random.default_rng(0)
    names, numbers = np.unique(slides, return_inverse=True)
    is_positive = (np.arange(len(names)) % 2 == 1)[numbers] ^ (rng.random(600) < 0.1)
    table.labels = np.where(is_positive, "mitotic figure", "look-alike")
    values = np.eye(len(names))[numbers] + rng.normal(size=(600, len(names))) * 0.1
    source = probes.protocols.InMemory(table.ids, values.astype(np.float32), "m", "sha256:m")
    reproduce([source], table, folder, **how)
    summary = ResultFolder.read(folder).tables["leakage-summary"]
    largest = summary[summary["size"] == 1].set_index("design")
    assert largest.loc["as given", "auroc_difference"] == 0
    assert largest.loc["grouped by slide", "auroc_difference"] < -0.1


def test_a_figure_is_drawn_by_any_plot():
    figure = Figure.drawn(lambda figure: figure.subplots().plot([1, 2]), caption="a line")
    assert figure.address.startswith("data:image/svg+xml;base64,")
