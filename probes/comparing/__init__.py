"""Whether models differ: paired tests on equal splits, corrected for how many there are.

Annotations of a slide resemble each other, repeats share annotations, and many pairs of models are
many chances: each makes differences look surer than they are. Every table says what was done about
it, and nothing is tested that has no test.
"""

from probes.comparing.comparison import Comparison, compare
from probes.comparing.corrections import CORRECTIONS, adjusted
from probes.comparing.resampling import ResampledTTest, resampled_t_test

__all__ = [
    "CORRECTIONS",
    "Comparison",
    "ResampledTTest",
    "adjusted",
    "compare",
    "resampled_t_test",
]
