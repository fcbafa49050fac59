"""Training against the bare loop: forward, backward, step, on the same pixels in memory.

Network, batch, precision and optimiser (fused Adam) are the same on both sides, which take turns.
What the trainer does beyond counts against it: drawing batches, changing pixels, clipping, the
schedule, watching the loss. On a machine with a GPU both sides run there.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from probes.endtoend.devices import quiet_lightning, start_fabric, torch_device
from probes.endtoend.fitting import Fitting, Job
from probes.endtoend.network import build
from probes.endtoend.pixels import HeldPixels, TrainPart, ValPart
from probes.endtoend.recipe import Recipe
from probes.endtoend.sampling import EachOnce, Plan
from probes.protocols import InMemory

TURNS = 4
ON_GPU = torch_device("auto").type == "cuda"

# Network, side of the input, steps: of a small network on a CPU, and what the paper trains.
CASES = (("timm:resnet18", 64, 20), ("timm:tf_efficientnet_lite0", 128, 10))
PAPER = ("timm:resnet50", 224, 200 if ON_GPU else 2)


def _pixels(recipe, n):
    shape = (n, recipe.source_px, recipe.source_px, 3)
    drawn = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return HeldPixels(InMemory(np.arange(n), drawn), np.arange(n), recipe.source_px)


def _job(recipe, n_steps, *, workers, augment_here):
    n = n_steps * recipe.batch_size
    codes = torch.arange(n) % 2
    return Job(
        recipe=recipe,
        start=lambda: build(recipe, 2),
        plan=Plan(EachOnce(n), batch_size=recipe.batch_size, epochs=1, seed=0),
        train=TrainPart(_pixels(recipe, n), codes, recipe, augment_here=augment_here),
        val=ValPart(None, codes[:0]),
        ids=np.arange(n),
        checkpoints=None,
        checkpoint_every_s=1e9,
        workers=workers,
        progress=False,
    )


def _trained_s(job, fabric):
    """Seconds of a step, from its end to that of the next, loading included."""
    fitting = Fitting(fabric, job)
    times = []
    step = fitting._train_on
    fitting._train_on = lambda loaded: (step(loaded), _wait(), times.append(time.perf_counter()))
    fitting.run()
    return np.median(np.diff(times))


def _bare_s(job, fabric):
    recipe, device = job.recipe, fabric.device
    classifier = build(recipe, 2).to(device).train()
    optimiser = torch.optim.Adam(classifier.parameters(), lr=1e-4, fused=True)
    n_steps, n = job.plan.n_steps, recipe.batch_size
    pixels_NHWC = torch.randint(
        0, 256, (n_steps * n, recipe.patch_px, recipe.patch_px, 3), dtype=torch.uint8
    )
    codes_N = torch.arange(n_steps * n) % 2
    times = []
    for step in range(n_steps):
        batch = slice(step * n, (step + 1) * n)
        with fabric.autocast():
            logits = classifier(pixels_NHWC[batch].to(device))
            loss = cross_entropy(logits, codes_N[batch].to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        _wait()
        times.append(time.perf_counter())
    return np.median(np.diff(times))


def _wait():
    if ON_GPU:
        torch.cuda.synchronize()


def _compared(network, patch_px, n_steps, *, augmentation, workers=0):
    """Say both speeds in images/s: the best turn of each side, of each turn the median step."""
    precision = "bf16-mixed" if ON_GPU else "32"
    recipe = Recipe(
        network=network, patch_px=patch_px, augmentation=augmentation, precision=precision
    )
    with quiet_lightning():
        fabric = start_fabric(precision, "auto", 1)
        job = _job(recipe, n_steps + 1, workers=workers, augment_here=not ON_GPU)
        turns = [(_bare_s(job, fabric), _trained_s(job, fabric)) for _ in range(TURNS)]
    bare, ours = (recipe.batch_size / min(times) for times in zip(*turns, strict=True))
    what = "pixels as they are" if augmentation == "none" else "every augmentation"
    where = f", {workers} workers" if workers else ""
    return (
        f"{network.removeprefix('timm:')}, {patch_px} px, {what}{where}: {ours:.1f} images/s; "
        f"bare loop {bare:.1f}; ratio {ours / bare:.3f}"
    )


PROGRAM = """
import time
import numpy as np
from types import SimpleNamespace
from torch.optim.optimizer import register_optimizer_step_post_hook
from probes import endtoend

register_optimizer_step_post_hook(lambda *_: print(time.time()))

ids = np.arange(16)
pixels = np.zeros((16, 48, 48, 3), np.uint8)
endtoend.train(
    SimpleNamespace(ids=ids, read=lambda asked: pixels[asked]),
    SimpleNamespace(labels_of=lambda asked: np.array(["a", "b"])[asked % 2]),
    SimpleNamespace(train=ids[:13], val=ids[:0], test=ids[13:]),
    network="timm:resnet50", pretrained={path!r}, patch_px=32, epochs=1,
)
"""


def _start_s():
    """Seconds of a program that imports, builds ResNet50 from a file, and makes one short step."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "weights.pth")
        weights = build(Recipe(network="timm:resnet50", patch_px=224), 1000).network.state_dict()
        torch.save(weights, path)
        began = time.time()
        program = [sys.executable, "-c", PROGRAM.format(path=path)]
        answer = subprocess.run(program, check=True, capture_output=True, text=True)
        return float(answer.stdout) - began


def run():
    """Yield one line per comparison."""
    threads = torch.get_num_threads()
    yield f"on {torch.cuda.get_device_name() if ON_GPU else f'a CPU, {threads} threads'}"
    for case in CASES:
        yield _compared(*case, augmentation="none")
    yield _compared(*PAPER, augmentation="ganz2024")
    yield _compared(*CASES[1], augmentation="ganz2024")
    yield _compared(*CASES[1], augmentation="ganz2024", workers=1)
    yield f"from the start of the program to the end of its first step: {_start_s():.1f} s"
