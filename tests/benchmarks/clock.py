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


def line(work, ours_s, other, theirs_s):
    """Say both times and how many times as long the other side takes."""
    return f"{work}: {_text(ours_s)}; {other} {_text(theirs_s)}; ratio {theirs_s / ours_s:.2f}"


def _text(seconds):
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1e3 * seconds:.1f} ms"
