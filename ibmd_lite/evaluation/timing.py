"""Timing that a busy machine does not bend: candidates take turns, and the median counts.

Lives here: `median_seconds`, and `flops`, which the machine does not bend at all. Imports torch alone.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["flops", "median_seconds"]


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions that a call makes, gradients included.

    Exact and the same on every machine; what is not counted (norms, activations, optimisers) is small arithmetic, but
    takes time all the same. A compiled network hides its operations: count before compiling.
    """
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def median_seconds(
    candidates: Mapping[str, Callable[[], object]], repeats: int = 20, warmup: int = 2
) -> dict[str, float]:
    """Wall-clock seconds of one call of each candidate, in turns: its median share of a turn, in a median turn.

    A slow spell of the machine lengthens a whole turn and leaves the shares as they are, so the ratio of two candidates
    is the median of ratios within a turn, whatever turns each had its slow moments in.  On a GPU the clock waits for
    the work queued by the call.

    Args:
        candidates: name to a call without arguments.
        repeats: rounds that count.
        warmup: rounds before them that do not.

    Raises:
        ValueError: no candidate, or no round.
    """
    if not candidates or repeats < 1 or warmup < 0:
        raise ValueError(
            f"{len(candidates)} candidates, {repeats} repeats, {warmup} warm-up rounds; expected at "
            "least one candidate and one repeat"
        )
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + repeats):
        for name, call in candidates.items():
            _wait()
            start = time.perf_counter()
            call()
            _wait()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    turns = [sum(turn) for turn in zip(*seconds.values(), strict=True)]
    return {
        name: statistics.median(turns) * statistics.median(own / turn for own, turn in zip(values, turns, strict=True))
        for name, values in seconds.items()
    }


def _wait() -> None:
    """Let the device finish what was queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
