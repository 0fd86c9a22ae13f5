"""Counted arithmetic and clocks in turns."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.evaluation import flops, median_seconds, timing
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws


def test_flops_of_a_product_and_of_both_gradients() -> None:
    layer, x = nn.Linear(3, 5, bias=False), torch.randn(7, 3, requires_grad=True)
    assert flops(lambda: layer(x)) == 2 * 7 * 3 * 5
    assert flops(lambda: layer(x).sum().backward()) == 3 * 2 * 7 * 3 * 5
    layer.requires_grad_(False)
    assert flops(lambda: layer(x).sum().backward()) == 2 * 2 * 7 * 3 * 5


@pytest.mark.parametrize(("L", "reuse", "steps"), [(5, 1, 1), (5, 5, 1), (3, 2, 1), (1, 1, 1), (2, 2, 3)])
def test_an_iteration_makes_the_passes_of_the_formula_and_no_more(L: int, reuse: int, steps: int) -> None:
    """ceil(L/r) N for the images, 3 L for the fake, N + 2 for the generator, 2 each through teacher and fake."""
    torch.manual_seed(0)
    teacher = BridgeModel(UNet(width=16, multipliers=(1, 2), patch=2), Brownian())
    x, t = torch.randn(2, 3, 16, 16), torch.full((2,), 0.5)
    with torch.no_grad():
        forward = flops(lambda: teacher(x, t))
    settings = DistillationSettings(fake_updates=L, reuse=reuse)
    run = Distillation(teacher, Student.of(teacher, steps=steps), settings=settings, device="cpu")
    updates = run.updates(Draws(lambda n, random: torch.randn(n, 3, 16, 16, generator=random), 2), 2)
    expected = math.ceil(L / reuse) * steps + 3 * L + (steps + 2) + 4
    assert flops(lambda: next(updates)) / forward == pytest.approx(expected, abs=0.3)


def test_two_equal_calls_are_equal_whatever_turns_each_had_its_slow_moments_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second each on a clock of our own, two in slow moments: one for the first in three turns, two for the other."""
    now, slow = [0.0], {"first": iter([0, 0, 1]), "second": iter([0, 1, 1])}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call(name: str) -> None:
        now[0] += 1 + next(slow[name])

    seconds = median_seconds({name: lambda name=name: call(name) for name in slow}, repeats=3, warmup=0)
    assert seconds["first"] == seconds["second"], "their own medians are 1 and 2"


def test_clocks_take_turns_after_a_warm_up() -> None:
    called: list[str] = []

    def slow() -> None:
        called.append("slow")
        time.sleep(0.02 if len(called) > 2 else 0.2)

    seconds = median_seconds({"slow": slow, "quick": lambda: called.append("quick")}, repeats=3, warmup=1)
    assert called == ["slow", "quick"] * 4
    assert 0.02 <= seconds["slow"] < 0.2, "the first round does not count"
    assert seconds["quick"] < 0.02
