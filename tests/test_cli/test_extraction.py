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

RUN = "from featstore_cli.main import run; run()"


def begin(store, log, *, workers):
    """Start an extraction of three chunks in a process group of its own."""
    words = ["extract", store, "--model", "timm:test_vit", "--random-weights", 0, "--quiet"]
    words += ["--dataset", "midog", "--batch-size", 4, "--workers", workers, "--log", log]
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
    words = ["--model", "timm:test_vit", "--random-weights", 0, "--dataset", "midog", "--quiet"]
    said = ok("extract", region_store, *words, "--workers", 0).lines[-1]
    assert " in the encoder, " in said
    assert " waiting for patches, " in said
