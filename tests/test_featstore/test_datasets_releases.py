import csv

import pytest

from featstore.datasets.releases import (
    MIDOG_2021,
    MIDOG_2022,
    MIDOG_PLUSPLUS,
    canonical_domain,
    recognise_midog,
)


def files(numbers, pattern="{:03d}.tiff"):
    return {number: pattern.format(number) for number in numbers}


@pytest.mark.parametrize("release", [MIDOG_2022, MIDOG_PLUSPLUS])
def test_counts_by_domain_add_up_to_those_of_the_release(release):
    assert tuple(map(sum, zip(*release.by_domain.values(), strict=True))) == release.counts


@pytest.mark.parametrize(
    ("release", "n_all"), [(MIDOG_2021, 200), (MIDOG_2022, 405), (MIDOG_PLUSPLUS, 553)]
)
def test_the_blocks_of_a_release_hold_each_image_once(release, n_all):
    numbers = [number for block in release.blocks for number in block.numbers]
    assert sorted(numbers) == list(range(1, n_all + 1))
    assert len(release.image_numbers(labelled_only=True)) == release.n_images


@pytest.mark.parametrize(
    ("images", "release"),
    [
        (files(range(1, 201)), MIDOG_2021),
        (files(range(1, 406)), MIDOG_2022),
        (files(range(1, 355)), MIDOG_2022),
        (files(range(1, 554)), MIDOG_PLUSPLUS),
        (files([*range(1, 151), *range(201, 554)]), MIDOG_PLUSPLUS),
        (files(range(1, 151)), None),  # the same images in all three, with other domains
        (files(range(1, 51)), None),
        (files(range(1, 200)), None),
        (files(range(1, 201), "{:d}.tiff"), None),
        (files(range(1, 201), "slide{:03d}.tiff"), None),
        (files(map(str, range(1, 201)), "{:0>3}.tiff"), None),
        ({}, None),
    ],
)
def test_a_release_is_recognised_only_with_certainty(images, release):
    assert recognise_midog(images) is release


def test_both_misspellings_of_the_scanner_have_one_domain():
    assert canonical_domain("Hammamatsu XR") == canonical_domain("Hamammatsu XR") == "Hamamatsu XR"


def test_the_official_table_of_midog_plusplus_agrees_with_the_blocks(real_data):
    with open(real_data / "annotations" / "datasets_xvalidation.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert len(rows) == 503
    for row in rows:
        number = int(row["Slide"])
        assert MIDOG_PLUSPLUS.domain_of(number) == canonical_domain(row["Tumor"])
        if number <= 150:
            assert MIDOG_2021.domain_of(number) == canonical_domain(row["Scanner"])
