"""DDBM's weight as a teacher's own answer: the same walks as with weighted steps, exactly, and in a distillation."""

import copy

import pytest
import torch
from teachers.test_steps import LINEAR, PlainTime, perfect, slope
from torch import nn
from torch.distributions import Normal

from ibmd_lite.bridges import I2SB, VP, Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, ibmd_loss
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.model import DDBM, BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.sampling import Heun, Hybrid, Markov, karras_grid, sample
from ibmd_lite.teachers import GuidedHeun, GuidedHybrid, Pulled, average_teacher, guided
from ibmd_lite.training import Draws, Settings


def some(bridge, n=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xt, xT = torch.randn(2, n, 1, generator=generator, dtype=torch.float64)
    return xt, xT, bridge.T * (0.05 + 0.9 * torch.rand(n, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("bridge", LINEAR, ids=str)
def test_the_answer_has_the_weighted_v(bridge):
    """v = s - w h in (sigma^2 v + xt)/alpha, with h by autograd of the transition's density."""
    xt, xT, t = some(bridge)
    (alpha, sigma), end = bridge.prior(t), bridge.prior(torch.full_like(t, bridge.T))
    kept = end[0] / alpha
    std = (end[1] ** 2 - (kept * sigma) ** 2).sqrt()
    h = slope(lambda x: Normal(kept[:, None] * x, std[:, None]).log_prob(xT), xt)
    plain = perfect(bridge)(xt, t, xT)
    score = (alpha[:, None] * plain - xt) / sigma[:, None] ** 2 + h
    for weight in (0.0, 0.5, 1.7):
        expected = (sigma[:, None] ** 2 * (score - weight * h) + xt) / alpha[:, None]
        torch.testing.assert_close(Pulled(perfect(bridge), weight)(xt, t, xT), expected)
    assert torch.equal(Pulled(perfect(bridge), 1.0)(xt, t, xT), plain)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("bridge", LINEAR, ids=str)
def test_its_walks_are_those_of_the_weighted_steps(bridge, weight):
    """Of a perfect teacher of Gaussians: its ODE has the weight (1 + w)/2, its SDE w, both to rounding."""
    xT = torch.randn(6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, half = perfect(bridge), (1 + weight) / 2
    below, whole = karras_grid(bridge, 12, first=0.999 * bridge.T), karras_grid(bridge, 12)
    for grid, plain, weighted in (
        (below, Heun(), GuidedHeun(half)),
        (whole, Heun(), GuidedHeun(half)),  # the draw out of T has no weight in either
        (below, Hybrid(0.2), GuidedHybrid(half, weight, churn=0.2)),
    ):
        one, other = (
            sample(walked, xT, grid, step, generator=torch.Generator().manual_seed(1))
            for walked, step in ((Pulled(model, weight), plain), (model, weighted))
        )
        torch.testing.assert_close(one.x0, other.x0, rtol=1e-9, atol=1e-9)
        assert one.nfe == other.nfe
        unguided = sample(model, xT, grid, plain, generator=torch.Generator().manual_seed(1))
        assert (one.x0 - unguided.x0).abs().max() > 1e-3


def test_a_walk_of_small_steps_has_the_mean_of_the_weighted_equation():
    """f x - g^2 (s - w h) on a Brownian bridge to a point x0 ~ N(m, tau^2), solved for the mean by small steps."""
    bridge, weight, x = Brownian(0.7), 0.5, torch.full((1, 1), 2.0, dtype=torch.float64)
    truth = GaussianCoupling(0.0, 0.2, 0.6, 0.0, 1.0)
    times = 1 - torch.linspace(0.001, 1, 20001, dtype=torch.float64)
    mean = torch.tensor(2.0, dtype=torch.float64)
    _, b, c = bridge.coefficients(times[:-1])
    variance = (b * 0.6) ** 2 + c**2
    for t, s, bt, v in zip(times[:-1], times[1:], b, variance, strict=True):
        score, h = -(mean - t * 2.0 - bt * 0.2) / v, (2.0 - mean) / (0.7 * (1 - t))
        mean = mean - (s - t) * 0.7 * (score - weight * h)
    grid = times[::20].clone()
    walk = sample(Pulled(perfect(bridge, truth), weight), x, grid, Markov(0.0))
    assert walk.x0.item() == pytest.approx(mean.item(), abs=5e-3)


@pytest.mark.parametrize("bridge", [Brownian(0.7), VP()], ids=str)
def test_at_the_end_the_answer_is_the_teachers_and_below_it_is_finite(bridge):
    model, (xt, xT, _) = perfect(bridge), some(bridge)
    for dtype in (torch.float32, torch.float64):
        end = torch.full((len(xT),), bridge.T, dtype=dtype)
        x = xT.to(dtype).requires_grad_()
        answer = Pulled(model, 0.3)(x, end, xT.to(dtype))
        torch.testing.assert_close(answer, model(x, end, xT.to(dtype)))
        answer.sum().backward()
        assert bool(x.grad.isfinite().all())
        below = torch.nextafter(end, torch.zeros_like(end))
        assert bool(Pulled(model, 0.3)(xt.to(dtype), below, xT.to(dtype)).isfinite().all())
    zero = torch.zeros(len(xT), dtype=torch.float64)
    torch.testing.assert_close(Pulled(model, 0.3)(xt, zero, xT), model(xt, zero, xT))


def small(conditional=True, bridge=None):
    torch.manual_seed(0)
    network = MLP(2, 16, 1, conditional=conditional)
    nn.init.normal_(network.output_layer.weight, std=0.1)
    return BridgeModel(network, bridge or VP(), conditional=conditional, prediction=DDBM())


@pytest.mark.parametrize("given", [True, False])
def test_a_distillation_takes_it_and_fake_and_student_are_plain(given):
    teacher = small()
    fake = copy.deepcopy(teacher) if given else None
    settings = DistillationSettings(
        generator=Settings(1e-3, average=None),
        fake=Settings(1e-3, average=None),
        fake_updates=1,
        weight=lambda t: teacher.output_weight(t) * (1 - t),
    )
    run = Distillation(Pulled(teacher, 0.5), Student.of(teacher), fake=fake, settings=settings, device="cpu")
    before = copy.deepcopy(teacher.state_dict())
    record = next(run.updates(Draws(lambda n, g: torch.randn(n, 2, generator=g), 16), 1))
    assert record.gap > 1e-4, "the fake is a copy of the teacher, the teacher is pulled"
    assert type(run.fake) is BridgeModel
    assert type(run.student.model) is BridgeModel
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    other = Distillation(Pulled(small(), 0.7), Student.of(teacher), settings=settings, device="cpu")
    with pytest.raises(ValueError, match="the checkpoint is of another run"):
        other.load_state_dict(run.state_dict())


def test_the_gap_is_the_mean_square_of_what_is_added():
    """Where the fake is the plain teacher's: E lambda ((1 - w) t/(T - t) (xT - xt))^2."""
    bridge, weight = Brownian(0.7), 0.25
    model, (x0, xT, t) = perfect(bridge), some(bridge)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    losses = ibmd_loss(Pulled(model, weight), model, x0, xT, t, noise=noise)
    xt = bridge.sample(x0, xT, t, noise)
    expected = ((1 - weight) * (t / (1 - t))[:, None] * (xT - xt)).square().mean()
    torch.testing.assert_close(losses.gap, expected)


def test_what_cannot_be_pulled_is_refused(tmp_path):
    plain = small()
    with pytest.raises(TypeError, match="a BridgeModel is pulled, got MLP"):
        Pulled(plain.network, 0.5)
    for weight in (-0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a number of at least 0"):
            Pulled(plain, weight)
    with pytest.raises(ValueError, match="an unconditional model is not told xT"):
        Pulled(small(conditional=False), 0.5)
    with pytest.raises(ValueError, match="has no h"):
        Pulled(BridgeModel(plain.network, I2SB(), conditional=True, prediction=PlainTime()), 0.5)
    with pytest.raises(ValueError, match="pulled already, with weight"):
        Pulled(Pulled(plain, 0.5), 0.5)
    with pytest.raises(ValueError, match="a pulled model is not saved"):
        Pulled(plain, 0.5).save(tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="guide first"):
        guided(Pulled(plain, 0.5), 2.0, null=1)
    with pytest.raises(ValueError, match="average first"):
        average_teacher([Pulled(plain, 0.5), plain])
    with pytest.raises(ValueError, match="needs xT"):
        Pulled(plain, 0.5)(torch.zeros(2, 2), torch.ones(2))
