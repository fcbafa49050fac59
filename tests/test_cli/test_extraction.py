"""extract as a batch system runs it: told to end, and followed by its log."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import featstore
from featstore.store.verify import verify

VIT = ["--model", "timm:test_vit", "--random-weights", 0, "--dataset", "midog", "--quiet"]
RUN = "from featstore_cli.main import run; run()"


def begin(store, log, *, workers, device=("--device", "cpu")):
    """Start an extraction of three chunks in a process group of its own."""
    words = ["extract", store, "--model", "timm:test_vit", "--random-weights", 0, "--quiet"]
    words += ["--dataset", "midog", "--batch-size", 4, "--workers", workers, "--log", log, *device]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(log, process):
    while not (log.exists() and log.read_text().endswith("\n")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_all_processes_of_several_devices_ends_them_and_leaves_whole_chunks(
    region_store, tmp_path, ok, workers
):
    log = tmp_path / "log.jsonl"
    process = begin(region_store, log, workers=workers, device=("--devices", "cpu,cpu"))
    wait_for(log, process)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("interrupted: ")
    assert verify(region_store)[0].rule == "S3"
    ok("extract", region_store, *VIT, "--workers", 0)
    assert verify(region_store) == []


def rows_there(store):
    return featstore.open(store).list()[0].rows


@pytest.mark.parametrize(("workers", "whole_group"), [(0, False), (2, False), (2, True)])
def test_sigterm_ends_a_run_after_a_chunk_and_the_next_goes_on(
    region_store, tmp_path, ok, workers, whole_group
):
    log = tmp_path / "log.jsonl"
    process = begin(region_store, log, workers=workers)
    wait_for(log, process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("interrupted: ")
    there = rows_there(region_store)
    assert there in (256, 512)
    assert verify(region_store)[0].rule == "S3"  # whole chunks, and rows that are missing
    words = ["--model", "timm:test_vit", "--random-weights", 0, "--dataset", "midog"]
    ok("extract", region_store, *words, "--workers", 0, "--quiet", "--log", log)
    assert rows_there(region_store) == 600
    assert verify(region_store) == []
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["rows_before"] for line in lines][-1] == there
    assert lines[-1]["rows_before"] + lines[-1]["rows_new"] == lines[-1]["rows"] == 600
    for line in lines:
        parts = [line[name] for name in ("wait_s", "encode_s", "stall_s")]
        assert min(parts) >= 0
        assert sum(parts) <= line["wall_s"]


def test_extract_says_where_the_time_went(region_store, ok):
    said = ok("extract", region_store, *VIT, "--workers", 0)
    assert said.out.startswith("test_vit-random0/midog: 600 embeddings of 64 in ")
    spent = next(line for line in said.err.splitlines() if line.startswith("time: "))
    assert " in the encoder, " in spent
    assert " waiting for patches, " in spent


def spec_of(store, key="test_vit-random0"):
    return featstore.open(store).embeddings(key, "midog").provenance.encoder


def test_several_models_are_extracted_in_one_pass(region_store, ok):
    said = ok("extract", region_store, *VIT, "--model", "timm:test_resnet", "--workers", 0)
    assert [line.split(":")[0] for line in said.lines] == [
        "test_vit-random0/midog",
        "test_resnet-random0/midog",
    ]
    assert featstore.open(region_store).models("midog") == [
        "test_resnet-random0",
        "test_vit-random0",
    ]


def test_models_of_other_input_sizes_get_a_pass_of_their_own(region_store, ok):
    said = ok("extract", region_store, *VIT, "--model", "timm:vit_tiny_patch16_224", "--workers", 0)
    assert sum(line.startswith("time: ") for line in said.err.splitlines()) == 2
    rows = {row.model: row.rows for row in featstore.open(region_store).list()}
    assert rows == {"test_vit-random0": 600, "vit_tiny_patch16_224-random0": 600}


def test_devices_of_one_machine_share_the_work(region_store, ok):
    ok("extract", region_store, *VIT, "--devices", "cpu,cpu", "--workers", 0)
    assert verify(region_store) == []
    run = featstore.open(region_store).embeddings("test_vit-random0", "midog").provenance.run
    assert run["device"] == "cpu, cpu"


def test_the_best_precision_is_taken_said_recorded_and_kept_when_going_on(region_store, ok):
    said = ok("extract", region_store, *VIT, "--workers", 0)
    chosen = spec_of(region_store).precision
    assert f"test_vit-random0: {chosen} (" in said.err
    again = ok("extract", region_store, *VIT, "--workers", 0)
    assert again.out.startswith("test_vit-random0/midog: all 600")
    assert "cosine" not in again.err
    ok("extract", region_store, *VIT, "--precision", "float32", "--name", "exact", "--workers", 0)
    chunk = region_store / "embeddings" / "exact-random0" / "midog" / "values" / "c" / "0" / "0"
    chunk.unlink()
    ok("extract", region_store, *VIT, "--name", "exact", "--workers", 0)
    assert spec_of(region_store, "exact-random0").precision == "float32"


def test_an_encoder_that_bfloat16_would_change_stays_in_float32(region_store, ok):
    said = ok("extract", region_store, "--model", "efficientnet-lite0", *VIT[4:], "--workers", 0)
    assert spec_of(region_store, "efficientnet-lite0").precision == "float32"
    assert "efficientnet-lite0: float32 (" in said.err


def test_exact_means_float32_nothing_compiled_and_the_same_bytes(region_store, ok, chunks_of):
    ok("extract", region_store, *VIT, "--exact", "--workers", 0)
    there = featstore.open(region_store).embeddings("test_vit-random0", "midog").provenance
    assert there.encoder.precision == "float32"
    assert (there.run["exact"], there.run["compiled"]) == (True, False)
    before = chunks_of(region_store, "test_vit-random0", "midog")
    values = region_store / "embeddings" / "test_vit-random0" / "midog" / "values" / "c"
    (values / "1" / "0").unlink()
    ok("extract", region_store, *VIT, "--exact", "--workers", 2)
    assert chunks_of(region_store, "test_vit-random0", "midog") == before


def test_several_models_find_their_weights_in_one_folder(region_store, tmp_path, ok, run):
    timm = pytest.importorskip("timm")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder = tmp_path / "weights"
    folder.mkdir()
    words = ["extract", region_store, "--model", "timm:test_vit", "--model", "timm:test_resnet"]
    words += ["--dataset", "midog", "--quiet", "--workers", 0, "--weights", folder]
    save_file(
        timm.create_model("test_vit", num_classes=0).state_dict(), folder / "test_vit.safetensors"
    )
    refused = run(*words)
    assert refused.code == 1
    assert "holds none for 'timm:test_resnet'; it needs one file such as" in refused.err
    network = timm.create_model("test_resnet", num_classes=0)
    save_file(network.state_dict(), folder / "test_resnet.safetensors")
    ok(*words)
    assert spec_of(region_store, "test_resnet").weights_from == "file test_resnet.safetensors"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "timm:test_resnet", "--name", "mine"], "--name is for one --model"),
        (["--model", "timm:test_vit"], "the same --model was given twice"),
        (["--weights", "w.pth"], "give either --weights FILE or --random-weights SEED"),
    ],
)
def test_options_that_contradict_each_other_are_refused(region_store, run, words, message):
    refused = run("extract", region_store, *VIT, *words)
    assert refused.code == 2
    assert message in refused.err


def test_weights_of_several_models_are_a_folder(region_store, run):
    words = ["--model", "timm:test_vit", "--model", "timm:test_resnet", "--dataset", "midog"]
    refused = run("extract", region_store, *words, "--weights", "w.pth")
    assert refused.code == 2
    assert "--weights is a folder that holds a file for each" in refused.err


def test_a_gpu_that_is_not_there_is_one_line(region_store, run):
    refused = run("extract", region_store, *VIT, "--devices", "0,99")
    assert refused.code == 1
    assert "device 'cuda:" in refused.err
    assert len(refused.err.strip().splitlines()) == 1
