"""Bridge matching: the loss is its formula, training finds the exact denoiser, bad pairs go no further."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.matching import TeacherTraining, matching_loss, weighted_mean
from ibmd_lite.model import BBDM, DDBM, BridgeModel, I2SBNoise, Source
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Settings


class Recorder(nn.Module):
    """A smooth network with one weight that keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.seen: list[tuple[torch.Tensor, ...]] = []

    def forward(self, xt: torch.Tensor, time: torch.Tensor, xT: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append((xt, time) if xT is None else (xt, time, xT))
        time = time.reshape(-1, *[1] * (xt.ndim - 1))
        return torch.tanh(self.weight * xt + time / 1000) + (0 if xT is None else 0.3 * xT)


def batch(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """x0, xT, noise of a shape and t, float64."""
    random = torch.Generator().manual_seed(seed)
    x0, xT, noise = torch.randn(3, *shape, generator=random, dtype=torch.float64)
    return x0, xT, noise, torch.rand(shape[0], generator=random, dtype=torch.float64)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("shape", [(5, 2), (4, 3, 4, 6)])
def test_loss_is_its_formula(shape: tuple[int, ...], conditional: bool) -> None:
    x0, xT, noise, t = batch(shape)
    model = BridgeModel(Recorder(), Brownian(eps=0.6), conditional=conditional)
    weights = 1 + t
    total = 0.0
    for n in range(shape[0]):  # sample by sample, so that no broadcast can hide
        s = t[n].item()
        xt = s * xT[n] + (1 - s) * x0[n] + math.sqrt(0.6 * s * (1 - s)) * noise[n]
        x0_hat = torch.tanh(0.7 * xt + s) + (0.3 * xT[n] if conditional else 0)
        total += weights[n].item() * (x0_hat - x0[n]).square().mean().item() / shape[0]
    loss = matching_loss(model, x0, xT, t, weight=lambda t: 1 + t, noise=noise)
    assert loss.item() == pytest.approx(total, abs=1e-12)
    assert matching_loss(model, x0, xT, t, noise=noise).item() != pytest.approx(total, rel=0.1), "the weight counts"
    assert len(model.network.seen[0]) == (3 if conditional else 2), "xT reaches a conditional network alone"


@pytest.mark.parametrize("prediction", [I2SBNoise(), BBDM(), DDBM()])
def test_output_weight_makes_it_the_loss_of_the_output(prediction: object) -> None:
    x0, xT, noise, t = batch((6, 2))
    t = 0.1 + 0.8 * t
    bridge = VP()
    model = BridgeModel(Recorder(), bridge, prediction=prediction)
    a, b, c = (curve[:, None] for curve in bridge.coefficients(t))
    xt = a * xT + b * x0 + c * noise
    skip, out, scale, time = (x[:, None] for x in prediction.scalings(bridge, t))
    output = torch.tanh(0.7 * scale * xt + time / 1000)
    target = (x0 - skip * xt) / out  # what the network itself should return
    loss = matching_loss(model, x0, xT, t, weight=model.output_weight, noise=noise)
    assert loss.item() == pytest.approx((output - target).square().mean().item(), abs=1e-12)


def test_mask_counts_the_hole_alone() -> None:
    x0, xT, noise, t = batch((4, 3, 4, 4))
    mask = torch.zeros(4, 1, 4, 4, dtype=torch.float64)
    mask[0, :, :2], mask[1, :, 1:3, 1:3], mask[2] = 1, 1, 1  # holes of 8, 4, 16 and no pixels
    x = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    by_hand = sum(
        (1 + t[n].item()) * x[n, :, i, j].sum().item()
        for n, i, j in itertools.product(range(4), range(4), range(4))
        if mask[n, 0, i, j] == 1
    )
    assert weighted_mean(x, t, lambda t: 1 + t, Source(xT, mask)).item() == pytest.approx(by_hand / (3 * 28), abs=1e-12)
    assert weighted_mean(x, t, None, Source(xT, 0 * mask)).item() == 0, "no hole, no loss, no division by zero"

    model = BridgeModel(Recorder(), Brownian())
    source = Source(xT, mask)
    loss = matching_loss(model, x0, source, t, noise=noise)
    elsewhere = x0 + (1 - mask) * 100
    # the network is pointwise, so a changed known pixel can enter through the loss alone
    assert matching_loss(model, elsewhere, source, t, noise=noise).item() == pytest.approx(loss.item(), abs=1e-12)
    assert matching_loss(model, x0 + mask, source, t, noise=noise).item() != pytest.approx(loss.item(), rel=1e-3)


def test_loss_refuses_times_and_shapes() -> None:
    x0, xT, noise, t = batch((4, 2))
    model = BridgeModel(Recorder(), Brownian())
    with pytest.raises(ValueError, match=r"shape \(4,\).* got \(4, 1\)"):
        matching_loss(model, x0, xT, t[:, None], noise=noise)
    with pytest.raises(ValueError, match=r"one shape, got \(4, 2\) and \(4, 1\)"):
        matching_loss(model, x0, xT[:, :1], t, noise=noise)
    with pytest.raises(ValueError, match=r"\[0, T\]"):
        matching_loss(model, x0, xT, 2 + t, noise=noise)
    assert not model.network.seen, "refused before the network"


TRUTH = GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69)


@pytest.mark.parametrize(
    ("conditional", "bridge"), [(False, Brownian()), (True, Brownian()), (False, ContinuousI2SB())]
)
def test_training_finds_the_exact_denoiser(conditional: bool, bridge: Bridge) -> None:
    """The excess over the smallest loss is the squared distance to the exact denoiser; it must all but vanish."""
    torch.manual_seed(0)
    model = BridgeModel(MLP(1, width=32, depth=1, conditional=conditional), bridge, conditional=conditional)

    def draw(n: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x0, xT = TRUTH.draw(n, random)
        return x0.float(), xT.float()

    training = TeacherTraining(model, Settings(5e-3, average=0.98), device="cpu")
    records = list(training.updates(Draws(draw, 256), 500))
    assert [record.update for record in records] == list(range(1, 501))
    assert all(record.loss > 0 and record.seconds > 0 for record in records)

    x0, xT = TRUTH.draw(4000, torch.Generator().manual_seed(1))
    t = bridge.draw_times(4000, torch.Generator().manual_seed(2)).double()
    xt = bridge.sample(x0, xT, t, torch.randn(4000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    partner = xT if conditional else None
    exact = TRUTH.posterior_mean(bridge, xt, t, partner)
    with torch.no_grad():
        learnt = training.teacher(xt.float(), t.float(), None if partner is None else partner.float())
    error = (learnt - exact).square().mean()
    # An affine-in-xt guess that ignores t is off by 0.02 or more, the mean of x0 by 0.8; gradients of batches of
    # 256 leave about 1e-3 with this step size and average.
    assert error < 5e-3, f"mean square distance {error:.4f} to the exact denoiser"
    assert (x0 - exact).square().mean() > 20 * error, "the error is small beside the noise it was learnt from"


def test_default_weight_and_times_can_be_replaced() -> None:
    model = BridgeModel(MLP(2, 8, 1), Brownian(), prediction=BBDM())
    seen: list[torch.Tensor] = []

    def weight(t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return 0 * t + 3

    def middle(n: int, random: torch.Generator) -> torch.Tensor:
        assert isinstance(random, torch.Generator)
        return torch.full((n,), 0.5)

    plain = TeacherTraining(copy.deepcopy(model), draw_times=middle, device="cpu")
    heavy = TeacherTraining(model, weight=weight, draw_times=middle, device="cpu")
    pairs = [(torch.ones(3, 2), torch.zeros(3, 2))]
    loss, tripled = (next(run.updates(pairs, 1)).loss for run in (plain, heavy))
    assert torch.equal(seen[0], torch.full((3,), 0.5))
    assert tripled == pytest.approx(3 * loss, rel=1e-6), "1/out^2 is 1 for BBDM"


def pairs_with(third: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    good = (torch.ones(4, 2), torch.zeros(4, 2))
    return [good, good, third, good]


@pytest.mark.parametrize(
    ("x0", "xT", "message"),
    [
        (torch.full((4, 2), math.nan), torch.zeros(4, 2), "x0 holds NaN or infinite"),
        (torch.ones(4, 2), torch.full((4, 2), math.inf), "xT holds NaN or infinite"),
        (torch.ones(4, 2), torch.zeros(4, 3), r"\(4, 2\) and \(4, 3\)"),
        (torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.long), "floating-point"),
        (torch.ones(4, 2), "picture.png", "got str"),
    ],
)
def test_a_bad_third_batch_does_not_reach_the_network(x0: torch.Tensor, xT: torch.Tensor, message: str) -> None:
    model = BridgeModel(MLP(2, 8, 1), Brownian())
    training = TeacherTraining(model, device="cpu")
    calls = []
    model.network.register_forward_pre_hook(lambda *_: calls.append(1))
    updates = training.updates(pairs_with((x0, xT)), 4)
    assert [next(updates).update, next(updates).update] == [1, 2]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises((ValueError, TypeError), match=message):
        next(updates)
    assert len(calls) == 2
    assert training.update == 2
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_refuses_before_work() -> None:
    with pytest.raises(TypeError, match=r"got MLP; wrap the network"):
        TeacherTraining(MLP(2, 8, 1))  # type: ignore[arg-type]
    training = TeacherTraining(BridgeModel(MLP(2, 8, 1), Brownian()), device="cpu")
    with pytest.raises(ValueError, match="at least one update"):
        training.updates([], 0)
    with pytest.raises(ValueError, match=r"ended before update 2 .* itertools.cycle"):
        list(training.updates([(torch.ones(4, 2), torch.zeros(4, 2))], 3))


def test_updates_go_on_where_they_stopped() -> None:
    training = TeacherTraining(BridgeModel(MLP(2, 8, 1), Brownian()), device="cpu")
    pairs = itertools.repeat((torch.ones(4, 2), torch.zeros(4, 2)))
    assert [record.update for record in training.updates(pairs, 2)] == [1, 2]
    assert [record.update for record in training.updates(pairs, 5)] == [3, 4, 5]
    assert list(training.updates(pairs, 5)) == []


@pytest.mark.parametrize("bridge", [Flow(), ResShift(steps=4)])
def test_bridges_without_prior_train(bridge: Bridge) -> None:
    training = TeacherTraining(BridgeModel(MLP(2, 8, 1), bridge), Settings(1e-2), device="cpu")
    pairs = itertools.repeat((torch.ones(32, 2), torch.zeros(32, 2)))
    losses = [record.loss for record in training.updates(pairs, 30)]
    assert losses[-1] < 0.5 * losses[0]
