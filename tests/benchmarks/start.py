"""How long it takes to start: against importing NumPy, which both packages stand on."""

import subprocess
import sys

from tests.benchmarks.clock import best_s

COMMANDS = {
    "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
    "python -c 'import probes'": [sys.executable, "-c", "import probes"],
    "python -c 'import featstore'": [sys.executable, "-c", "import featstore"],
    "featstore --help": [
        sys.executable,
        "-c",
        "from featstore_cli.main import run; run()",
        "--help",
    ],
}


def run():
    """Yield one line per command."""
    for name, words in COMMANDS.items():
        seconds = best_s(lambda words=words: subprocess.run(words, capture_output=True), runs=7)
        yield f"{name:30} {seconds:.3f} s"
