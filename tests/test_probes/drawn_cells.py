"""Cells that are drawn: noisy patches with a dark shape near the centre, for tests of networks."""

from dataclasses import dataclass

import numpy as np
import torch

from probes.endtoend import train

RESNET = "timm:test_resnet.r160_in1k"
EFFICIENTNET = "timm:test_efficientnet.r160_in1k"
VIT = "timm:test_vit.r160_in1k"  # without batch normalisation, and without dropout


@dataclass(frozen=True)
class Pixels:
    ids: np.ndarray
    pixels: np.ndarray

    def read(self, ids):
        return self.pixels[np.searchsorted(self.ids, ids)]


@dataclass(frozen=True)
class Labels:
    ids: np.ndarray
    labels: np.ndarray

    def labels_of(self, ids):
        return self.labels[np.searchsorted(self.ids, ids)]

    def column(self, name):
        return {"slide": np.array(["s1", "s2", "s3"])[np.arange(len(self.ids)) % 3]}[name]


@dataclass(frozen=True)
class Parts:
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


SHAPES = {
    "blob": lambda radius: radius < 9,
    "ring": lambda radius: (radius > 9) & (radius < 12.7),
    "bare": lambda radius: radius < 0,
}


def cells(n, names=("blob", "ring"), *, px=48, seed=0):
    """Draw noisy patches with a dark shape near the centre; blob and ring are equally large."""
    rng = np.random.default_rng(seed)
    labels = np.array(names)[np.arange(n) % len(names)]
    rows, columns = np.mgrid[:px, :px] - px / 2
    pixels = rng.normal(190, 20, (n, px, px, 3))
    for patch, label in zip(pixels, labels, strict=True):
        down, right = rng.uniform(-3, 3, 2)
        patch[SHAPES[label](np.hypot(rows - down, columns - right))] -= 70
    ids = np.arange(n) * 10 + 1000
    return Pixels(ids, pixels.clip(0, 255).astype(np.uint8)), Labels(ids, labels)


def parts(ids, *, train, val=0):
    return Parts(ids[:train], ids[train : train + val], ids[train + val :])


QUICK = {
    "network": RESNET,
    "pretrained": None,
    "patch_px": 48,
    "epochs": 2,
    "batch_size": 16,
    "max_learning_rate": 3e-3,
    "device": "cpu",
}


def quick(patches, labels, split, **options):
    """Train a tiny network on a CPU; so small, it gains nothing from threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(patches, labels, split, **QUICK | options)
    finally:
        torch.set_num_threads(before)


def weights(trained):
    return trained.classifier.state_dict()


def same_weights(left, right):
    """Whether two networks have the same weights, bit for bit."""
    assert weights(left).keys() == weights(right).keys()
    return all(torch.equal(tensor, weights(right)[key]) for key, tensor in weights(left).items())
