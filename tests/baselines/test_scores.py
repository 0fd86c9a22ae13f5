"""SiD and VSD against IBMD, a gradient written by hand, and the exact Kullback-Leibler gradient of a Gaussian."""

from __future__ import annotations

import pytest
import torch
from couplings import line
from torch import nn

from ibmd_lite.baselines import SiD, vsd_loss
from ibmd_lite.bridges import VP, Brownian
from ibmd_lite.data.plane import RotatedNoisy
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, ibmd_loss
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import MLP
from ibmd_lite.training import Draws, Settings

STUDENT = GaussianCoupling(0.2, -0.4, 0.5, 0.0, 1.69)


def model(seed: int, conditional: bool = True) -> BridgeModel:
    torch.manual_seed(seed)
    network = MLP(2, 16, 1, conditional)
    nn.init.normal_(network.output_layer.weight, std=0.3)
    return BridgeModel(network.double(), Brownian(), conditional=conditional)


def batch(n: int = 64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(5)
    x0, xT, noise = torch.randn(3, n, 2, dtype=torch.float64)
    return x0.requires_grad_(), xT, torch.rand(n, dtype=torch.float64), noise


class Exact(nn.Module):
    """The perfect denoiser of a Gaussian coupling, as a network on a bridge."""

    def __init__(self, truth: GaussianCoupling, bridge: Brownian | VP) -> None:
        super().__init__()
        self.truth, self.bridge = truth, bridge

    def forward(self, xt: torch.Tensor, time: torch.Tensor, xT: torch.Tensor | None = None) -> torch.Tensor:
        return self.truth.posterior_mean(self.bridge, xt, time / 1000 * self.bridge.T, xT)


def exact(truth: GaussianCoupling, bridge: Brownian | VP, conditional: bool) -> BridgeModel:
    return BridgeModel(Exact(truth, bridge), bridge, conditional=conditional)


def quadrature(
    bridge: Brownian | VP, student: GaussianCoupling, generator: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """x0, xT, t, noise and probabilities: a rule that is exact for squares of affine functions."""
    node, share = torch.tensor([-(3**0.5), 0, 3**0.5], dtype=torch.float64), torch.tensor([1, 4, 1]).double() / 6
    times = torch.tensor([0.07, 0.3, 0.6, 0.93], dtype=torch.float64) * bridge.T
    t, xT, z, noise = (x.flatten() for x in torch.meshgrid(times, node, node, node, indexing="ij"))
    weight = torch.stack([x.flatten() for x in torch.meshgrid(share, share, share, indexing="ij")]).prod(0)
    xT = student.mu + student.S.sqrt()[0] * xT[:, None]
    x0 = generator["A"] * xT + generator["m"] + generator["tau"] * z[:, None]
    return x0, xT, t, noise[:, None], weight.repeat(len(times)) * len(weight)


def parameters(student: GaussianCoupling) -> dict[str, torch.Tensor]:
    return {name: getattr(student, name).clone().flatten().requires_grad_() for name in ("A", "m", "tau")}


@pytest.mark.parametrize("conditional", [False, True])
def test_sid_at_one_half_is_half_of_ibmd_for_every_sample_and_in_its_gradient(conditional):
    teacher, fake = model(0, conditional), model(1, conditional)
    x0, xT, t, noise = batch(8)
    for k in range(8):
        one = (x0[k : k + 1], xT[k : k + 1], t[k : k + 1])
        sid = SiD(0.5)(teacher, fake, *one, noise=noise[k : k + 1])
        plain = ibmd_loss(teacher, fake, *one, noise=noise[k : k + 1])
        assert sid.loss.item() == pytest.approx(plain.loss.item() / 2, abs=1e-12)
        assert sid.gap.item() == pytest.approx(plain.gap.item(), abs=1e-12)
    here, there = (loss(teacher, fake, x0, xT, t, noise=noise).loss for loss in (SiD(0.5), ibmd_loss))
    (here,), (there,) = (torch.autograd.grad(loss, x0) for loss in (here, there))
    assert here == pytest.approx(there / 2, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
def test_sid_is_its_formula_written_out_with_the_gradient_through_xt(alpha):
    teacher, fake = model(0), model(1)
    x0, xT, t, noise = batch()
    a, b, c = (x[:, None] for x in Brownian().coefficients(t))
    xt = a * xT + b * x0 + c * noise
    target, own = teacher(xt, t, xT), fake(xt, t, xT)
    expected = ((1 + t[:, None]) * (target - own) * ((target - x0) - alpha * (target - own))).mean()
    found = SiD(alpha)(teacher, fake, x0, Source(xT), t, weight=lambda t: 1 + t, noise=noise).loss
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    (here,), (there,) = (torch.autograd.grad(loss, x0) for loss in (found, expected))
    assert here == pytest.approx(there, abs=1e-14)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2])
@pytest.mark.parametrize("conditional", [False, True])
def test_sid_at_the_perfect_fake_is_one_minus_alpha_times_the_gap(conditional, alpha):
    bridge, fitted = Brownian(), parameters(STUDENT)
    x0, xT, t, noise, share = quadrature(bridge, STUDENT, fitted)
    teacher, fake = exact(line(), bridge, conditional), exact(STUDENT, bridge, conditional)
    losses = SiD(alpha)(teacher, fake, x0, xT, t, weight=lambda _: share, noise=noise)
    assert losses.loss.item() == pytest.approx((1 - alpha) * losses.gap.item(), abs=1e-12)
    assert losses.gap.item() > 0.01


def test_all_alphas_have_the_same_gradient_near_the_truth_and_other_ones_far_from_it():
    bridge = Brownian()

    def gradient(alpha: float, away: float) -> torch.Tensor:
        truth = line()
        student = GaussianCoupling(truth.A + away, truth.m - away, truth.tau - away, truth.mu, truth.S)
        fitted = parameters(student)
        x0, xT, t, noise, share = quadrature(bridge, student, fitted)
        models = exact(truth, bridge, True), exact(student, bridge, True)
        loss = SiD(alpha)(*models, x0, xT, t, weight=lambda _: share, noise=noise).loss
        return torch.cat(torch.autograd.grad(loss, list(fitted.values())))

    differences = [(gradient(1.2, e) - gradient(0.5, e)).norm() / gradient(0.5, e).norm() for e in (1e-3, 1e-1)]
    assert differences[0] < 2e-3
    assert 50 < differences[1] / differences[0] < 200  # proportional to the distance


def test_the_gradient_of_vsd_is_the_one_written_by_hand_and_nothing_else_gets_one():
    teacher, fake = model(0), model(1)
    x0, xT, t, noise = batch()
    a, b, c = (x[:, None] for x in Brownian().coefficients(t))
    xt = (a * xT + b * x0 + c * noise).detach()
    expected = (1 + t[:, None]) * (fake(xt, t, xT) - teacher(xt, t, xT)) / x0.numel()
    losses = vsd_loss(teacher, fake, x0, xT, t, weight=lambda t: 1 + t, noise=noise)
    losses.loss.backward()
    assert x0.grad == pytest.approx(expected.detach(), abs=1e-14)
    assert losses.loss.item() == pytest.approx(losses.gap.item() / 2, abs=1e-12)
    assert all(p.grad is None for p in [*teacher.parameters(), *fake.parameters()])


@pytest.mark.parametrize("bridge", [Brownian(0.7), VP()])
def test_vsd_with_its_weight_is_the_gradient_of_a_divergence_for_conditional_teachers(bridge):
    """KL(p_t(xt | xT) || p*_t(xt | xT)) of two Gaussians, averaged over xT and the times, differentiated."""
    truth, fitted = line(), parameters(STUDENT)
    x0, xT, t, noise, share = quadrature(bridge, STUDENT, fitted)

    def weight(t: torch.Tensor) -> torch.Tensor:
        _, b, c = bridge.coefficients(t)
        return share * (b / c).square()

    loss = vsd_loss(exact(truth, bridge, True), exact(STUDENT, bridge, True), x0, xT, t, weight=weight, noise=noise)
    found = torch.autograd.grad(loss.loss, list(fitted.values()))
    _, b, c = (curve[:, None] for curve in bridge.coefficients(t))
    own, other = (b**2 * tau**2 + c**2 for tau in (fitted["tau"], truth.tau))
    apart = b * ((fitted["A"] - truth.A) * xT + fitted["m"] - truth.m)
    divergence = ((own + apart.square()) / other - 1 - (own / other).log()) / 2
    expected = torch.autograd.grad((share[:, None] * divergence).mean(), list(fitted.values()))
    for here, there in zip(found, expected, strict=True):
        assert here == pytest.approx(there, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", [SiD(1.2), vsd_loss, ibmd_loss])
def test_distillation_takes_the_loss_as_a_setting_and_learns_with_it(loss):
    bridge, coupling = Brownian(), RotatedNoisy()
    torch.manual_seed(0)
    teacher = BridgeModel(MLP(2, 16, 1, True), bridge, conditional=True)
    student = Student.of(teacher)
    before = [p.clone() for p in student.parameters()]
    teacher.network.output_layer.bias.data += 0.3  # now the fake, a copy of the teacher, must move first
    learning = Settings(1e-3, average=None)
    settings = DistillationSettings(generator=learning, fake=learning, loss=loss)
    run = Distillation(teacher, student, settings=settings, device="cpu")
    records = list(run.updates(Draws(coupling.sources, 32), 5))
    assert any(not torch.equal(a, b) for a, b in zip(before, run.student.parameters(), strict=True))
    if loss is vsd_loss:
        assert all(record.loss == pytest.approx(record.gap / 2) for record in records)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_an_alpha_that_is_no_number_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be a finite number"):
        SiD(alpha)


@pytest.mark.parametrize("loss", [SiD, "sid"])
def test_a_class_is_no_loss(loss):
    with pytest.raises(TypeError, match="loss must be a function such as ibmd_loss or SiD"):
        DistillationSettings(loss=loss)
