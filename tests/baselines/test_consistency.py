"""Consistency losses against the exact consistency function of a Gaussian coupling."""

from __future__ import annotations

import pytest
import torch
from couplings import line
from torch import nn

from ibmd_lite.baselines import ConsistencyDistillation, ConsistencyTraining
from ibmd_lite.bridges import Brownian
from ibmd_lite.data.plane import RotatedNoisy
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import MLP
from ibmd_lite.student import Student
from ibmd_lite.training import Draws, Settings

BRIDGE, TRUTH = Brownian(0.7), line()


class Perfect(nn.Module):
    """The perfect conditional teacher of the Gaussian coupling."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Linear(2, 1)  # not used: a network has parameters

    def forward(self, xt: torch.Tensor, time: torch.Tensor, xT: torch.Tensor) -> torch.Tensor:
        return TRUTH.posterior_mean(BRIDGE, xt, time / 1000, xT)


class EndOfPath(Perfect):
    """Its exact consistency function: the path keeps the standardised state, (xt - mean_t)/std_t, to the end."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off = off

    def forward(self, xt: torch.Tensor, time: torch.Tensor, xT: torch.Tensor) -> torch.Tensor:
        a, b, c = (x[:, None] for x in BRIDGE.coefficients(time / 1000))
        mean, std = TRUTH.A * xT + TRUTH.m, ((b * TRUTH.tau) ** 2 + c**2).sqrt()
        path = (xt - a * xT - b * mean) / std.clamp_min(1e-30)
        return mean + TRUTH.tau * path * (1 + self.off * time[:, None] / 1000)


def student(network: nn.Module) -> Student:
    return Student.of(BridgeModel(network, BRIDGE, conditional=True), noise_channels=0)


def run(steps: int, off: float = 0.0, kind: str = "CBD", **more: object) -> ConsistencyTraining:
    if kind == "CBT":
        made = ConsistencyTraining(student(EndOfPath(off)), grid=BRIDGE.grid(steps), device="cpu", **more)
    else:
        teacher = BridgeModel(Perfect(), BRIDGE, conditional=True)
        made = ConsistencyDistillation(teacher, student(EndOfPath(off)), grid=BRIDGE.grid(steps), device="cpu", **more)
    made.model.double(), made.learner.averaged.double()
    return made


def batch(training: ConsistencyTraining, n: int = 4000) -> tuple[torch.Tensor, Source, torch.Tensor, torch.Tensor]:
    """Pairs, times below T (where a path exists), noise."""
    random = torch.Generator().manual_seed(3)
    x0, xT = TRUTH.draw(n, random)
    t = training.grid[torch.randint(1, len(training.grid) - 1, (n,), generator=random)]
    return x0, Source(xT), t, torch.randn(n, 1, generator=random, dtype=torch.float64)


def test_the_exact_consistency_function_has_no_loss_but_for_the_error_of_a_first_order_step():
    def loss(steps: int) -> float:
        training = run(steps)
        x0, source, _, noise = batch(training)
        t = training.grid[torch.arange(len(x0)) % (steps // 2) + steps // 4]  # away from the ends
        return training.loss(x0, source, t, noise).item()

    assert loss(200) < 1e-9
    assert loss(100) / loss(200) == pytest.approx(16, rel=0.1)  # an error of dt^2 in each step, squared


def test_another_function_has_a_loss():
    training = run(400, off=0.2)
    exact = run(400)
    assert training.loss(*batch(training)).item() > 10 * exact.loss(*batch(exact)).item()


def test_at_the_end_of_the_grid_the_target_is_the_state_itself():
    class Shifted(EndOfPath):
        def forward(self, xt: torch.Tensor, time: torch.Tensor, xT: torch.Tensor) -> torch.Tensor:
            return super().forward(xt, time, xT) + 1  # no identity at time 0

    training = ConsistencyTraining(student(Shifted()), grid=BRIDGE.grid(50), device="cpu")
    training.model.double()
    x0, source, _, noise = batch(training)
    t = training.grid[-2].expand(len(x0))
    xt = BRIDGE.sample(x0, source.xT, t, noise)
    expected = (training.model(xt, t, source.xT) - x0).square().mean()  # h(x, 0) = x, and xs is x0
    assert training.loss(x0, source, t, noise).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_pair_step_of_training_is_on_average_the_teachers_step_of_distillation():
    """x_s of CBT minus x_s of CBD must be uncorrelated with everything that h sees."""
    training, distillation = run(20, kind="CBT"), run(20)
    x0, source, _, noise = batch(training, 200_000)
    t, s = (training.grid[k].expand(len(x0)) for k in (8, 9))
    xt = BRIDGE.sample(x0, source.xT, t, noise)
    pair, step = (method.state_below(x0, xt, source, t, s, noise) for method in (training, distillation))
    assert (pair - step).std() > 0.01  # they are not the same
    for seen in (torch.ones_like(xt), xt, source.xT):
        product = (pair - step) * seen
        assert abs(product.mean()) < 4 * product.std() / len(product) ** 0.5


def test_the_teachers_step_is_deterministic_below_T_and_random_out_of_it():
    training = run(20)
    x0, source, _, noise = batch(training)
    for index, differs in ((0, True), (1, False)):
        t, s = (training.grid[k].expand(len(x0)) for k in (index, index + 1))
        xt = BRIDGE.sample(x0, source.xT, t, noise)
        first, second = (training.state_below(x0, xt, source, t, s, e) for e in (noise, -noise))
        assert torch.equal(first, second) != differs


def test_the_student_of_the_exact_function_draws_the_exact_law():
    training = run(200)
    sampled = training.student
    assert sampled.nfe == 2
    assert sampled.grid.tolist() == training.grid[[0, 1, -1]].tolist()
    _, xT = TRUTH.draw(200_000, torch.Generator().manual_seed(4))
    # At T a consistency function is the mean; the exact function's limit there is that mean, as its path is 0/0.
    torch.manual_seed(6)
    x0 = sampled(xT)
    rest = x0 - TRUTH.A * xT - TRUTH.m
    assert rest.mean().item() == pytest.approx(0, abs=0.01)
    assert rest.std().item() == pytest.approx(TRUTH.tau.item(), rel=0.01)


@pytest.mark.parametrize("averaged", [False, True])
def test_the_target_gets_no_gradient_and_may_be_the_average(averaged):
    bridge, coupling = Brownian(), RotatedNoisy()
    torch.manual_seed(0)
    teacher = BridgeModel(MLP(2, 16, 1, True), bridge, conditional=True)
    nn.init.normal_(teacher.network.output_layer.weight)
    training = ConsistencyDistillation(
        teacher,
        Student.of(teacher, noise_channels=0),
        Settings(1e-3, average=0.9),
        grid=bridge.grid(8),
        averaged_target=averaged,
        device="cpu",
    )
    list(training.updates(Draws(coupling.draw, 64), 3))
    x0, xT = coupling.draw(64, torch.Generator().manual_seed(1))
    t, noise = training.grid[3].float().expand(64), torch.randn(64, 2)
    s = training.grid[4].float().expand(64)
    xt = bridge.sample(x0, xT, t, noise)
    xs = training.state_below(x0, xt, Source(xT), t, s, noise)
    target = (training.teacher if averaged else training.model)(xs, s, xT).detach()
    expected = (training.model(xt, t, xT) - target).square().mean()
    found = training.loss(x0, Source(xT), t, noise)
    weights = list(training.model.parameters())
    for here, there in zip(torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True):
        assert here == pytest.approx(there, abs=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


def test_what_does_not_fit_is_refused():
    unconditional = Student.of(BridgeModel(MLP(2, 16, 1), BRIDGE), noise_channels=0)
    noisy = Student.of(BridgeModel(MLP(2, 16, 1, True), BRIDGE, conditional=True))
    good = student(EndOfPath())
    with pytest.raises(ValueError, match="needs a conditional teacher"):
        ConsistencyTraining(unconditional, grid=BRIDGE.grid(8))
    with pytest.raises(ValueError, match="no noise channels, got 2"):
        ConsistencyTraining(noisy, grid=BRIDGE.grid(8))
    with pytest.raises(ValueError, match="two steps or more"):
        ConsistencyTraining(good, grid=BRIDGE.grid(1))
    with pytest.raises(ValueError, match="needs a running average"):
        ConsistencyTraining(good, Settings(average=None), grid=BRIDGE.grid(8), averaged_target=True)
    other = BridgeModel(Perfect(), Brownian(2.0), conditional=True)
    with pytest.raises(ValueError, match="give them one bridge"):
        ConsistencyDistillation(other, good, grid=BRIDGE.grid(8))
    with pytest.raises(ValueError, match="must not share a network"):
        ConsistencyDistillation(good.model, good, grid=BRIDGE.grid(8))
