"""Regression finds the conditional mean, whatever the pairs and whether or not it is given noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ibmd_lite.baselines import Regression, teacher_pairs
from ibmd_lite.bridges import Brownian, ResShift
from ibmd_lite.model import BridgeModel
from ibmd_lite.sampling import DBIM
from ibmd_lite.student import Student
from ibmd_lite.training import Draws, Settings, Shuffled


class Line(nn.Module):
    """A linear network without time: least squares then has one exact answer."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.input_layer(x)


MAP = torch.tensor([[0.5, -0.4], [0.3, 0.8]])


def pairs(n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """x0 = MAP xT + 1, and one of two far answers added: the mean is no possible answer."""
    xT = torch.randn(n, 2, generator=generator)
    sign = 2 * torch.randint(2, (n, 1), generator=generator) - 1
    return xT @ MAP.T + 1 + 2 * sign, xT


def student(noise_channels: int, bridge: Brownian | ResShift | None = None) -> Student:
    torch.manual_seed(0)
    teacher = BridgeModel(Line(), bridge or Brownian())
    return Student.of(teacher, noise_channels=noise_channels)


@pytest.mark.parametrize("noise_channels", [0, 2])
def test_regression_finds_the_conditional_mean_and_ignores_its_noise(noise_channels):
    run = Regression(student(noise_channels), Settings(0.05, average=0.99, decay=500), device="cpu")
    for _ in run.updates(Draws(pairs, 512), 500):
        pass
    weight = run.student.model.network.input_layer.weight.detach()
    assert weight[:, :2] == pytest.approx(MAP, abs=0.05)
    assert run.student.model.network.input_layer.bias.detach() == pytest.approx(torch.ones(2), abs=0.05)
    assert weight[:, 2:].abs().sum().item() < 0.15


def test_on_a_fixed_set_it_is_least_squares():
    x0, xT = pairs(200, torch.Generator().manual_seed(1))
    run = Regression(student(0), Settings(0.05, average=None, clip=None, decay=400), device="cpu")
    *_, record = run.updates(Shuffled(x0, xT, batch=200), 400)
    solution = torch.linalg.lstsq(torch.cat([xT, torch.ones(200, 1)], 1), x0).solution
    assert run.student.model.network.input_layer.weight.detach() == pytest.approx(solution[:2].T, abs=1e-4)
    assert record.loss == pytest.approx(
        (torch.cat([xT, torch.ones(200, 1)], 1) @ solution - x0).square().mean().item(), rel=1e-5
    )


def test_where_the_bridge_is_not_pinned_the_start_is_noisy_as_in_sampling():
    run = Regression(student(0, ResShift()), Settings(0.01), device="cpu")
    x0, xT = pairs(20_000, torch.Generator().manual_seed(2))
    network = run.model.network.input_layer
    nn.init.eye_(network.weight), nn.init.zeros_(network.bias)
    source = run._check(x0, xT)[1]
    found = run.loss(xT, source, torch.ones(len(xT)), x0).item()  # the state is xT plus the end's noise
    assert found == pytest.approx(ResShift().end_std ** 2, rel=0.05)


def test_teacher_pairs_are_the_teachers_samples_of_the_streams_sources():
    class Counting(Line):
        calls = 0

        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(x, time)

    network = Counting()
    teacher = BridgeModel(network, Brownian())
    sources = [torch.randn(16, 2) for _ in range(3)]
    made = list(teacher_pairs(teacher, sources, teacher.bridge.grid(7), DBIM(), generator=torch.Generator()))
    assert network.calls == 3 * 7
    for (x0, source), xT in zip(made, sources, strict=True):
        assert torch.equal(source.xT, xT)
        assert x0.shape == xT.shape
        assert not x0.requires_grad


def test_a_student_of_several_steps_is_refused():
    several = Student.of(BridgeModel(Line(), Brownian()), steps=2)
    with pytest.raises(ValueError, match="student of one step, got 2"):
        Regression(several)
