"""Networks trained end to end on pixels, judged on the same annotations as the probes.

Needs the extra ``train`` (torch, torchvision, timm, lightning); ``import probes`` never comes here.
"""

from probes.errors import require

for _module in ("torch", "torchvision", "timm", "safetensors"):
    require(_module, extra="train", purpose="end-to-end training")

# After the check above, so that a missing library is one clear line and not a traceback of imports.
from probes.endtoend.augment import source_px  # noqa: E402
from probes.endtoend.experiment import NetworkResults, train_all  # noqa: E402
from probes.endtoend.recipe import PAPER_MPP, PRESETS, Recipe, preset  # noqa: E402
from probes.endtoend.train import train  # noqa: E402
from probes.endtoend.trained import TrainedNetwork, Training  # noqa: E402

__all__ = [
    "NetworkResults",
    "PAPER_MPP",
    "PRESETS",
    "Recipe",
    "TrainedNetwork",
    "Training",
    "preset",
    "source_px",
    "train",
    "train_all",
]
