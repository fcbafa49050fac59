"""The verb train, from the line that starts it to the files that it leaves."""

import json
import shutil
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import featstore
import probes
from featstore.encoders.build import build
from featstore.patches import patches_of

endtoend = pytest.importorskip("probes.endtoend")

PX = 32
TINY = ["--network", "timm:test_resnet", "--weights", "random", "--patch-px", PX, "--epochs", 1,
        "--quiet"]  # fmt: skip
NAME = "end-to-end test_resnet"


@pytest.fixture
def lab(tmp_path, write_midog, ok):
    """A store with 160 annotations on 4 images, without embeddings."""
    home = write_midog(n_images=4, cells_per_image=40)
    store = tmp_path / "lab.zarr"
    ok("add", store, "midog", "--annotations", home / "MIDOG.json", "--images", home / "images")
    return store


@pytest.fixture
def splits(lab, tmp_path, ok):
    """Two repeats of two sizes."""
    path = tmp_path / "splits.json"
    sizes = ["--repeats", 2, "--train", "0.3,1"]
    ok("split", lab, "--dataset", "midog", *sizes, "--out", path)
    return path


@pytest.fixture
def train(lab, run):
    """Run ``featstore train`` with a tiny network; later options replace earlier ones."""

    def run_train(splits, *options):
        return run("train", lab, "--dataset", "midog", "--splits", splits, *TINY, *options)

    return run_train


def table(outcome):
    assert outcome.code == 0, outcome.err
    return pd.read_csv(StringIO(outcome.out), keep_default_na=False)


def embed(lab, ok, *options):
    ok("extract", lab, "--dataset", "midog", "--precision", "float32", "--workers", 0, "--quiet",
       *options)  # fmt: skip


def test_the_whole_experiment_is_kept_skipped_and_put_beside_a_probe(
    lab, splits, train, ok, tmp_path
):
    out = tmp_path / "out"
    first = table(train(splits, "--results", out, "--csv"))
    assert first["split"].tolist() == [split.digest for split in probes.load_splits(splits)]
    assert sorted(path.name for path in out.iterdir()) == [
        "results.csv", "results.parquet", "scores.parquet"]  # fmt: skip
    again = train(splits, "--results", out, "--csv")
    assert again.err.splitlines()[0] == ("4 of 4 trainings are there and equal; nothing is trained")
    assert table(again).equals(first)
    embed(lab, ok, "--model", "timm:test_vit", "--random-weights", 0)
    curve = ok("curve", lab, "--dataset", "midog", "--splits", splits, "--C", 10,
               "--beside", out, "--csv")  # fmt: skip
    both = pd.read_csv(StringIO(curve.out), keep_default_na=False)
    networks, probed = both[both["model"] == NAME], both[both["model"] != NAME]
    keys = ["split", "size", "repeat", "n_train", "n_val", "n_test", "dataset_digest"]
    assert networks[keys].values.tolist() == probed[keys].values.tolist()
    assert networks["value"].tolist() == first["value"].tolist()


def test_splits_by_domain_give_the_rows_that_domains_gives(lab, train, ok, tmp_path):
    path = tmp_path / "domains.json"
    probes.single_domain(featstore.open(lab).annotations("midog"), repeats=1).save(path)
    trained = table(train(path, "--csv"))
    embed(lab, ok, "--model", "timm:test_vit", "--random-weights", 0)
    shown = ok("domains", lab, "--dataset", "midog", "--splits", path, "--C", 10, "--csv")
    probed = pd.read_csv(StringIO(shown.out), keep_default_na=False)
    keys = ["experiment", "split", "train_domain", "test_domain", "n_train", "n_test"]
    assert trained[keys].values.tolist() == probed[keys].values.tolist()
    assert "in domain" in train(path).out


def test_a_trained_network_is_an_encoder_that_can_be_probed(lab, splits, train, ok, tmp_path):
    nets = tmp_path / "nets"
    trained = table(train(splits, "--repeat", 0, "--save", nets, "--csv"))
    smaller, larger = sorted(nets.iterdir())
    assert smaller.name.startswith("test_resnet-repeat0-size0.3-")
    split = probes.load_splits(splits)[1]
    done = ok("extract", lab, "--model", f"file:{larger}", "--dataset", "midog", "--name", "own",
              "--precision", "float32", "--workers", 0, "--quiet")  # fmt: skip
    assert f"own: trained on {len(split.train)} annotations of 'midog', split" in done.err
    embeddings = featstore.open(lab).embeddings("own", "midog")
    provenance = embeddings.provenance
    assert provenance.run["trained_on"]["split"] == split.digest
    assert provenance.run["trained_on"]["recipe"] == trained["recipe"].iloc[1]
    assert (provenance.spec.input_px, provenance.spec.mpp) == (PX, 0.25)
    head = load_file(larger)
    logits = embeddings.read(split.test) @ head["fc.weight"].numpy().T + head["fc.bias"].numpy()
    value = probes.metrics.auroc(
        featstore.open(lab).annotations("midog").labels_of(split.test) == "mitotic figure",
        logits[:, 1] - logits[:, 0],
    )
    assert value == pytest.approx(trained["value"].iloc[1], abs=1e-9)
    shown = ok("probe", lab, "--model", "own", "--dataset", "midog", "--splits", splits,
               "--objective", "l2", "--number", 1, "--json")  # fmt: skip
    assert json.loads(shown.out)[0]["n_test"] == len(split.test)
    assert "seen" not in shown.err
    other = ok("probe", lab, "--model", "own", "--dataset", "midog", "--splits", splits,
               "--objective", "l2", "--number", 3)  # fmt: skip
    assert "own is a network trained on some of these annotations: 1 of 1 splits test" in other.err
    curve = ok("curve", lab, "--dataset", "midog", "--splits", splits, "--objective", "l2")
    assert "2 of 4 splits test it on what it has seen" in curve.err
    assert build(f"file:{smaller}").spec.key == smaller.stem


def test_extract_takes_resolution_and_size_from_the_file(lab, splits, train, ok, run, tmp_path):
    nets = tmp_path / "nets"
    assert train(splits, "--repeat", 0, "--mpp", 0.5, "--save", nets).code == 0
    to = ["extract", lab, "--model", f"file:{sorted(nets.iterdir())[0]}", "--dataset", "midog"]
    ok(*to, "--name", "own", "--workers", 0, "--quiet", "--precision", "float32")
    assert featstore.open(lab).embeddings("own", "midog").provenance.spec.mpp == 0.5
    assert "160 embeddings of 96 (average)" in ok(*to, "--dry-run").out
    refused = run(*to, "--random-weights", 0)
    assert refused.code == 1
    assert "leave out --weights and --random-weights" in refused.err


def test_patches_come_from_the_cache_where_it_holds_them(lab, splits, train, ok, tmp_path):
    plain = table(train(splits, "--repeat", 0, "--csv"))
    cut = ["cut", lab, "--dataset", "midog", "--quiet", "--patch-px"]
    ok(*cut, 40)
    small = train(splits, "--repeat", 0, "--csv")
    assert "does not hold all patches of 46 px" in small.err
    ok(*cut, 46, "--replace")
    shutil.move(tmp_path / "midog" / "images", tmp_path / "away")
    cached = table(train(splits, "--repeat", 0, "--csv"))
    assert cached.equals(plain)
    refused = train(splits, "--repeat", 0, "--mpp", 0.5)
    assert refused.code == 1
    assert "image" in refused.err.splitlines()[-1] or "2 of 2 trainings failed" in refused.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "ganz1924"], "no preset 'ganz1924'; there is ganz2024"),
        (["--network", "timm:resnet5O"], "no network 'timm:resnet5O'"),
        (["--network", "resnet50"], "give 'timm:NAME'"),
        (["--weights", "nowhere.pth"], "no checkpoint file nowhere.pth"),
        (["--weights", "imagenet"], "(here: --weights FILE, --download, --weights random)"),
        (["--trainable", "some"], "trainable='some'"),
        (["--sampling", "twice"], "sampling='twice'"),
        (["--precision", "8"], "precision='8'"),
        (["--repeat", "7"], "has no repeat 7; it holds 0 to 1"),
        (["--metric", "aurocc"], "metric='aurocc' is unknown"),
        (["--device", "cuda:77"], "cuda:77"),
    ],
)
def test_what_cannot_be_trained_is_one_line(splits, train, options, message, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    refused = train(splits, *options)
    assert refused.code == 1
    assert message in refused.err
    assert all(line.startswith(("Error: ", "[")) for line in refused.err.splitlines())


def test_devices_that_contradict_each_other_are_a_usage_error(splits, train):
    for more in (["--device", "cpu"], ["--ddp", 2]):
        refused = train(splits, "--devices", "cpu,cpu", *more)
        assert refused.code == 2
        assert "give one of --device, --devices and --ddp" in refused.err


def test_splits_of_another_dataset_are_refused(lab, train, tmp_path):
    other = featstore.open(lab).annotations("midog")
    labels = np.where(other.labels == "mitotic figure", "look-alike", "mitotic figure")
    swapped = featstore.AnnotationTable("midog", other.ids, labels, dict(other.columns))
    probes.monte_carlo(swapped, repeats=1, train=[1.0]).save(tmp_path / "other.json")
    refused = train(tmp_path / "other.json")
    assert refused.code == 1
    assert "label" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_a_batch_larger_than_the_training_part_is_one_batch(splits, train):
    shown = table(train(splits, "--repeat", 0, "--batch-size", 5_000, "--csv"))
    assert shown["n_train"].tolist() == [31, 103]
    assert "batch_size=5000" in shown["recipe"].iloc[0]


def test_a_training_that_fails_is_named_and_the_exit_code_says_so(splits, train, tmp_path):
    out = tmp_path / "out"
    assert train(splits, "--repeat", 0, "--results", out).code == 0
    failed = train(splits, "--results", out, "--learning-rate", 1e30, "--epochs", 3)
    assert failed.code == 1
    assert "failed, the loss is no finite number in epoch 1" in failed.err
    assert failed.err.splitlines()[-1] == (
        "Error: 4 of 4 trainings failed (repeat 0, size 0.3; repeat 0, size 1; repeat 1, size 0.3; "
        "repeat 1, size 1); all others are done and kept"
    )
    assert len(probes.Results.load(out)) == 2


def test_one_class_is_kept_as_nan_where_the_splits_say_so(lab, train, tmp_path):
    annotations = featstore.open(lab).annotations("midog")
    splits = probes.monte_carlo(annotations, repeats=8, train=[0.012, 1.0], one_class="keep")
    alone = [s for s in splits if len(set(annotations.labels_of(s.train).tolist())) == 1]
    assert alone  # a draw of two holds one class once in two
    path = tmp_path / "kept.json"
    replace(splits, members=(alone[0], splits[1])).save(path)
    shown = table(train(path, "--results", tmp_path / "out", "--csv"))
    assert shown["value"].tolist()[0] == ""
    assert "1 class" in shown["reason"].iloc[0]
    assert float(shown["value"].iloc[1]) >= 0
    again = train(path, "--results", tmp_path / "out")
    assert "2 of 2 trainings are there and equal" in again.err


def test_patches_are_those_of_encoders_once_they_are_cropped(lab):
    """What the network saw of a test annotation is what extract gives it."""
    opened = featstore.open(lab)
    ids = opened.annotations("midog").ids[:5]
    source_px = endtoend.preset("ganz2024", patch_px=PX).source_px
    larger = patches_of(opened, "midog", patch_px=source_px).read(ids)
    start = source_px // 2 - PX // 2
    centres = larger[:, start : start + PX, start : start + PX]
    assert np.array_equal(centres, patches_of(opened, "midog", patch_px=PX).read(ids))
