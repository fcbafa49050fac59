"""Published numbers, against the paper's table."""

import pytest

import probes
from probes.errors import ProbesError


def test_table_2_of_the_paper_is_there_with_its_source():
    table = probes.published("ganz2024-table2").set_index("published_as")
    numbers = table[[name for name in table if name.startswith("auroc")]]
    # Ganz et al., Table 2, as printed
    assert numbers.loc["H-optimus-0"].tolist() == [0.79, 0.04, 0.66, 0.07]
    assert numbers.loc["Phikon"].tolist() == [0.76, 0.03, 0.61, 0.05]
    assert numbers.loc["End-To-End ResNet50"].tolist() == [0.87, 0.04, 0.74, 0.07]
    assert len(table) == 9
    assert table["source"].unique().tolist() == [
        "Ganz et al., Is Self-Supervision Enough? Benchmarking Foundation Models Against "
        "End-to-End Training for Mitotic Figure Classification, Table 2"
    ]


def test_models_have_the_names_that_results_here_have():
    names = probes.published("ganz2024-table2").set_index("model")["published_as"]
    assert names["virchow2"] == "Virchow2"
    assert names["end-to-end resnet50"] == "End-To-End ResNet50"
    assert "virchow2:class" not in names  # the paper's has the mean of the patches as well


def test_a_table_that_is_not_kept_is_refused_with_those_that_are():
    with pytest.raises(ProbesError, match=r"no published table 'x' is kept.*ganz2024-table2"):
        probes.published("x")
