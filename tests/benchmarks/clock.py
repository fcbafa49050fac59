"""Timing on a shared machine: the best of a few runs."""

import time


def best_s(action, *, runs=3):
    """Seconds of the fastest run."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)
