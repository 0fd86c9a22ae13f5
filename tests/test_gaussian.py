"""The distillation objective against closed-form truth: optimum, failures without noise, gradient, lag."""

import math

import pytest
import torch
from couplings import line, plane
from torch import nn

from ibmd_lite.bridges import I2SB, VE, VP, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.distillation import ibmd_loss
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.model import BridgeModel, Scalings
from ibmd_lite.sampling import Markov, sample

FAMILIES = [Brownian(1.0), VP(), VE(T=2.0), ContinuousI2SB(1.0), I2SB(1.0, n=200)]
BOTH_KINDS = pytest.mark.parametrize("conditional", [False, True], ids=["unconditional", "conditional"])
EVERY_FAMILY = pytest.mark.parametrize("bridge", FAMILIES, ids=lambda bridge: type(bridge).__name__)


class PlainTime:
    """x0 prediction that hands the network t itself."""

    def scalings(self, bridge, t):
        return Scalings(torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t), t)


class Perfect(nn.Module):
    """The optimal denoiser of a Gaussian coupling, as a network; ``shift`` makes it a wrong one."""

    def __init__(self, truth: GaussianCoupling, bridge, shift: float = 0.0):
        super().__init__()
        self.truth, self.bridge = truth, bridge
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))

    def forward(self, xt, time, xT=None):
        return self.truth.posterior_mean(self.bridge, xt, time, xT) + self.shift


def perfect_model(truth, bridge, conditional, shift=0.0):
    return BridgeModel(Perfect(truth, bridge, shift), bridge, conditional=conditional, prediction=PlainTime())


def parameters(coupling, *names):
    return {name: getattr(coupling, name).clone().requires_grad_() for name in names}


def minimise(truth, bridge, start: dict, conditional) -> tuple[GaussianCoupling, float]:
    """Newton-like descent of the closed-form gap over the student's free parameters."""
    fixed = {"mu": truth.mu, "S": truth.S, "tau": torch.zeros_like(truth.tau)}
    free = list(start.values())
    optimiser = torch.optim.LBFGS(
        free, max_iter=600, history_size=30, line_search_fn="strong_wolfe", tolerance_grad=1e-16, tolerance_change=1e-20
    )

    def closure():
        optimiser.zero_grad()
        value = truth.gap(GaussianCoupling(**(fixed | start)), bridge, conditional=conditional)
        value.backward()
        return value

    optimiser.step(closure)
    found = {name: value.detach() for name, value in start.items()}
    return GaussianCoupling(**(fixed | found)), closure().item()


@EVERY_FAMILY
@BOTH_KINDS
@pytest.mark.parametrize("make", [line, plane])
def test_optimum_with_noise_is_the_true_coupling(bridge, conditional, make):
    truth = make()
    d = len(truth.m)
    start = {
        "A": (0.5 * torch.eye(d, dtype=torch.float64)).requires_grad_(),
        "m": torch.zeros(d, dtype=torch.float64, requires_grad=True),
        "tau": (0.4 * torch.eye(d, dtype=torch.float64)).requires_grad_(),
    }
    found, gap = minimise(truth, bridge, start, conditional)
    assert gap < 1e-14
    tolerance = (
        2e-5  # the gap is quadratic around the optimum: 1e-14 of gap is about 1e-6 of parameter, less where weak
    )
    torch.testing.assert_close(found.A, truth.A, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.m, truth.m, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.spread, truth.spread, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("conditional", "variance", "slope", "loss"),
    [(True, 1.69, 0.6, 0.105), (False, 1.69, 0.726, 0.0062), (False, 1.0, 0.806, 0.0086)],
)
def test_without_noise_the_optimum_is_blur_or_a_biased_map(conditional, variance, slope, loss):
    """METHOD of the paper in one dimension: published digits, to their rounding."""
    truth = GaussianCoupling(0.6, 0.3, 0.8, 0.0, variance)
    start = {"A": torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)}
    start["m"] = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    found, gap = minimise(truth, Brownian(1.0), start, conditional)
    assert found.A.item() == pytest.approx(slope, abs=5e-4)
    assert found.m.item() == pytest.approx(0.3, abs=1e-6)
    assert gap == pytest.approx(loss, abs=5e-4 if conditional else 5e-5)


def exact_batch(student: GaussianCoupling, bridge):
    """Nodes (x0, xT, t, noise) and weights with which a batch mean is an exact expectation.

    The loss is quadratic in xT, z and noise, and the two points +-1, equally weighted, integrate every
    quadratic of a standard normal exactly; t runs over the quadrature that ``gap`` uses.
    """
    d = len(student.m)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * (3 * d)).reshape(-1, 3, d)
    times, measure = student._times(bridge, None)
    t = times.repeat_interleave(len(signs))
    weight = measure.repeat_interleave(len(signs)) * len(times)
    z, u, noise = signs.repeat(len(times), 1, 1).unbind(1)
    xT = student.mu + u @ torch.linalg.cholesky(student.S).T
    x0 = xT @ student.A.T + student.m + z @ student.tau.T
    return x0, xT, t, noise, weight


def displaced(truth, **free):
    values = {"A": truth.A + 0.1, "m": truth.m - 0.2, "tau": 0.7 * truth.tau} | free
    return GaussianCoupling(**values, mu=truth.mu, S=truth.S)


@EVERY_FAMILY
@BOTH_KINDS
@pytest.mark.parametrize("make", [line, plane])
def test_generator_gradient_is_the_closed_form_and_detaching_xt_is_not(bridge, conditional, make):
    truth = make()
    free = parameters(displaced(truth), "A", "m", "tau")
    student = displaced(truth, **free)
    held = displaced(truth)  # the fake: optimal for the student, its own parameters out of the graph
    x0, xT, t, noise, weight = exact_batch(student, bridge)
    teacher, fake = (perfect_model(coupling, bridge, conditional) for coupling in (truth, held))
    losses = ibmd_loss(teacher, fake, x0, xT, t, weight=lambda _: weight, noise=noise)

    gap = truth.gap(held, bridge, conditional=conditional)
    torch.testing.assert_close(losses.loss, gap, rtol=1e-9, atol=1e-12)  # optimal fake: no lag
    torch.testing.assert_close(losses.gap, gap, rtol=1e-9, atol=1e-12)

    expected = truth.gap_gradient(held, bridge, conditional=conditional)
    gradients = torch.autograd.grad(losses.loss, list(free.values()))
    size = max(part.abs().max() for part in expected)
    for found, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6 * size.item())

    again = displaced(truth, **parameters(displaced(truth), "A", "m", "tau"))
    x0, xT, t, noise, weight = exact_batch(again, bridge)
    xt = bridge.sample(x0, xT, t, noise).detach()
    seen = (xt, t, xT) if conditional else (xt, t)
    with torch.no_grad():
        target, fake_x0 = teacher(*seen), fake(*seen)
    detached = (weight[:, None] * ((target - x0).square() - (fake_x0 - x0).square())).mean()
    wrong = torch.autograd.grad(detached, [again.A, again.m, again.tau])
    right, wrong = (torch.cat([part.flatten() for part in parts]) for parts in (expected, wrong))
    assert (wrong - right).norm() > 0.1 * right.norm()


@EVERY_FAMILY
@BOTH_KINDS
def test_closed_form_gradient_is_the_derivative_of_the_gap(bridge, conditional):
    truth = plane()
    free = parameters(displaced(truth), "A", "m", "tau")
    gap = truth.gap(displaced(truth, **free), bridge, conditional=conditional)
    for found, want in zip(
        torch.autograd.grad(gap, list(free.values())),
        truth.gap_gradient(displaced(truth), bridge, conditional=conditional),
        strict=True,
    ):
        torch.testing.assert_close(found, want, rtol=1e-7, atol=1e-10)


@BOTH_KINDS
def test_a_fake_that_has_not_learned_shows_in_the_lag(conditional):
    """Half-way between teacher and optimum the lag is large; at the optimum it is zero.

    A fake that never left the teacher has gap, loss and lag zero, whatever the student does: only a refitted
    fake tells then.
    """
    truth, bridge = line(), Brownian(1.0)
    student = displaced(truth)
    halfway = displaced(truth, A=truth.A + 0.05, m=truth.m - 0.1, tau=0.85 * truth.tau)
    x0, xT, t, noise, weight = exact_batch(student, bridge)
    teacher = perfect_model(truth, bridge, conditional)

    def losses(fake):
        return ibmd_loss(teacher, fake, x0, xT, t, weight=lambda _: weight, noise=noise)

    honest = losses(perfect_model(student, bridge, conditional))
    behind = losses(perfect_model(halfway, bridge, conditional))
    never = losses(perfect_model(truth, bridge, conditional))
    assert abs((honest.loss - honest.gap).item()) < 1e-9
    assert (behind.loss - behind.gap).item() > 0.2 * honest.gap.item()
    # what the lagging fake misses of the loss is its own excess error, by the rule of Pythagoras
    excess = halfway.gap(student, bridge, conditional=conditional)
    assert (honest.loss - behind.loss).item() == pytest.approx(excess.item(), rel=1e-9)
    assert honest.gap.item() > 0.01
    assert max(abs(part.item()) for part in never[:2]) < 1e-14


@BOTH_KINDS
@pytest.mark.parametrize(
    "bridge", [Brownian(1.0), VP(), ContinuousI2SB(1.0), ResShift(), Flow()], ids=lambda b: type(b).__name__
)
def test_denoiser_is_the_regression_of_x0(bridge, conditional):
    """Least squares on exact draws finds the same affine map."""
    truth = plane()
    x0, xT = truth.draw(200_000, torch.Generator().manual_seed(0))
    time = bridge.grid(3)[1]
    t = torch.full((len(x0),), time.item(), dtype=torch.float64)
    noise = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    xt = bridge.sample(x0, xT, t, noise)
    if conditional and isinstance(bridge, Flow):
        with_both = truth.posterior_mean(bridge, xt, t, xT)  # without noise, xt and xT determine x0
        torch.testing.assert_close(with_both, x0, rtol=1e-6, atol=1e-6)
        return
    columns = torch.cat([xt, xT, torch.ones_like(xt[:, :1])] if conditional else [xt, torch.ones_like(xt[:, :1])], 1)
    fitted = columns @ torch.linalg.lstsq(columns, x0).solution
    exact = truth.posterior_mean(bridge, xt, t, xT if conditional else None)
    assert (fitted - exact).square().mean().sqrt() < 5 / math.sqrt(len(x0))


@pytest.mark.parametrize("bridge", [Brownian(0.02), Brownian(1.0), VP(), ContinuousI2SB(0.3)])
@pytest.mark.parametrize("conditional", [False, True])
def test_noise_that_both_student_and_bridge_see_is_no_z(bridge, conditional):
    """xT is noise that knows nothing of x0, as in a hole.  x0 = s xT (one draw) or x0 = s z (two draws): which s?"""
    truth = GaussianCoupling(0.0, 0.0, 0.5, 0.0, 1.0)
    scales = torch.linspace(0, 0.6, 121, dtype=torch.float64).tolist()
    found = {}
    for draws, make in {1: lambda s: (s, 0.0, 0.0), 2: lambda s: (0.0, 0.0, s)}.items():
        gaps = [truth.gap(GaussianCoupling(*make(s), 0.0, 1.0), bridge, conditional=conditional) for s in scales]
        found[draws] = min(zip(gaps, scales, strict=True))
    assert found[2][1] == 0.5
    assert found[2][0] < 1e-12, "two draws can be exact"
    assert found[1][1] < (0.01 if conditional else 0.25), "of one draw hardly half of the spread is left"
    assert found[1][0] > 0.01


def test_the_conditional_process_keeps_the_coupling_the_unconditional_one_only_the_marginals():
    truth, bridge = line(), Brownian(1.0)
    kept = truth.sampled(bridge, bridge.grid(4000), conditional=True)
    mixed = truth.sampled(bridge, bridge.grid(4000), conditional=False)
    assert kept.A.item() == pytest.approx(0.6, abs=1e-9)
    assert kept.tau.item() == pytest.approx(0.8, abs=2e-3)
    for made in (kept, mixed):
        variance = (made.A @ made.S @ made.A.T + made.spread).item()
        assert variance == pytest.approx(0.36 * 1.69 + 0.64, abs=4e-3)
        assert (made.m + made.A @ made.mu).item() == pytest.approx(0.3, abs=1e-9)
    assert abs(mixed.A.item() - 0.6) > 0.01


@BOTH_KINDS
def test_sampled_is_what_the_sampler_does(conditional):
    truth, bridge = plane(), VP()
    grid = bridge.grid(6)
    made = truth.sampled(bridge, grid, conditional=conditional)
    generator = torch.Generator().manual_seed(0)
    _, xT = truth.draw(200_000, generator)
    x0 = sample(perfect_model(truth, bridge, conditional), xT, grid, Markov(), generator=generator).x0
    ones = torch.cat([xT, torch.ones_like(xT[:, :1])], 1)
    fit = torch.linalg.lstsq(ones, x0).solution
    torch.testing.assert_close(fit[:2].T, made.A, atol=0.01, rtol=0)
    torch.testing.assert_close(fit[2], made.m, atol=0.01, rtol=0)
    torch.testing.assert_close((x0 - ones @ fit).T.cov(), made.spread, atol=0.01, rtol=0)


def test_bad_couplings_are_refused():
    with pytest.raises(ValueError, match="A must have shape"):
        GaussianCoupling(torch.eye(3), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="positive definite"):
        GaussianCoupling(0.6, 0.3, 0.8, 0.0, -1.0)
