"""DDBM's guidance: against the public code's numbers, against autograd, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from ibmd_lite.bridges import I2SB, VE, VP, Brownian, ContinuousI2SB, Flow
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.model import BridgeModel, Scalings
from ibmd_lite.sampling import Heun, Hybrid, Interval, karras_grid, sample
from ibmd_lite.teachers.steps import GuidedHeun, GuidedHybrid, ddbm_weights, pull

ITEMS = json.loads(Path(__file__).with_name("ddbm_guidance.json").read_text())["items"]
LINEAR = [Brownian(0.7), VP(), VE(T=2.0), ContinuousI2SB(1.0)]


class PlainTime:
    def scalings(self, bridge, t):
        return Scalings(torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t), t)


class Perfect(nn.Module):
    def __init__(self, truth, bridge):
        super().__init__()
        self.truth, self.bridge = truth, bridge

    def forward(self, xt, time, xT):
        return self.truth.posterior_mean(
            self.bridge, xt.reshape(-1, 1), time[:1].expand(xt.numel()), xT.reshape(-1, 1)
        ).reshape(xt.shape)


def perfect(bridge, truth=None):
    truth = truth or GaussianCoupling(0.6, 0.2, 0.7, 0.0, 1.0)
    return BridgeModel(Perfect(truth, bridge), bridge, conditional=True, prediction=PlainTime())


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


# The public code's numbers


@pytest.mark.parametrize("item", ITEMS, ids=[item["id"] for item in ITEMS])
def test_a_walk_with_guidance_is_the_public_codes(item):
    p = item["params"]
    bridge = VP(p["beta_d"], p["beta_min"], p["T"]) if p["mode"] == "vp" else VE(p["T"])
    g = p["gaussian"]
    model = perfect(bridge, GaussianCoupling(g["r"], g["m0"], g["s"], 0.0, 1.0))
    step = GuidedHeun(ddbm_weights(bridge, p["w"]).weight)
    result = sample(model, tensor(item["inputs"]["xT"]), tensor(item["inputs"]["times"]), step, keep_states=True)
    torch.testing.assert_close(torch.stack(result.states[1:]), tensor(item["outputs"]["states"]), **item["tol"])
    torch.testing.assert_close(result.x0, tensor(item["outputs"]["x"]), **item["tol"])
    assert result.nfe == item["outputs"]["nfe"]


# The drifts


def slope(log_density, x):
    x = x.clone().requires_grad_()
    log_density(x).sum().backward()
    return x.grad


def terms(bridge, n=20):
    """xt, x0, xT, t with f xt, g^2, the score of q(xt|x0,xT) and h, all by autograd or from the prior's rates."""
    generator = torch.Generator().manual_seed(0)
    xt, x0, xT = torch.randn(3, n, 1, generator=generator, dtype=torch.float64)
    t = bridge.T * (0.05 + 0.9 * torch.rand(n, generator=generator, dtype=torch.float64))
    a, b, c = (w[:, None] for w in bridge.coefficients(t))
    score = slope(lambda x: Normal(a * xT + b * x0, c).log_prob(x), xt)
    (alpha, sigma), end = bridge.prior(t), bridge.prior(torch.full_like(t, bridge.T))
    kept = end[0] / alpha
    std = (end[1] ** 2 - (kept * sigma) ** 2).sqrt()
    h = slope(lambda x: Normal(kept[:, None] * x, std[:, None]).log_prob(xT), xt)
    f, g2 = (w[:, None] for w in bridge.rates(t))
    return (xt, x0, xT, t), f * xt, g2, score, h


@pytest.mark.parametrize("bridge", LINEAR, ids=str)
def test_the_pull_is_the_gradient_of_the_transition_to_xT(bridge):
    (xt, _, xT, t), _, g2, _, h = terms(bridge)
    torch.testing.assert_close(pull(bridge, xt, xT, t), g2 * h)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.7])
@pytest.mark.parametrize("bridge", LINEAR, ids=str)
def test_one_step_follows_the_weighted_drifts(bridge, weight):
    """An interval so short that every rule is Euler's: the ODE alone, then half of it the SDE without noise."""
    (xt, x0, xT, _), *_ = terms(bridge)
    t, length = torch.tensor(0.6 * bridge.T, dtype=torch.float64), -1e-7
    at = Interval(bridge, lambda xt, t: x0, lambda: torch.zeros_like(xt), xT, t, t + length, last=False)
    ode, sde = drifts(bridge, xt, x0, xT, t.expand(len(xt)), weight)
    torch.testing.assert_close((GuidedHeun(weight)(xt, at) - xt) / length, ode, rtol=1e-5, atol=1e-5)
    mixed = GuidedHybrid(weight, weight, churn=0.5)(xt, at)
    torch.testing.assert_close((mixed - xt) / length, (ode + sde) / 2, rtol=1e-5, atol=1e-5)


def drifts(bridge, xt, x0, xT, t, weight):
    """f x - g^2 (s/2 - w h) and f x - g^2 (s - w h), with the densities' slopes written out."""
    a, b, c = (w[:, None] for w in bridge.coefficients(t))
    score = -(xt - a * xT - b * x0) / c**2
    (alpha, sigma), end = bridge.prior(t), bridge.prior(torch.full_like(t, bridge.T))
    kept = (end[0] / alpha)[:, None]
    h = kept * (xT - kept * xt) / (end[1] ** 2 - (kept[:, 0] * sigma) ** 2)[:, None]
    f, g2 = (w[:, None] for w in bridge.rates(t))
    return f * xt - g2 * (score / 2 - weight * h), f * xt - g2 * (score - weight * h)


class Fixed(nn.Module):
    def __init__(self, x0):
        super().__init__()
        self.x0 = x0

    def forward(self, xt, time, xT):
        return self.x0


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_the_rule_of_ve_is_half_the_weight_and_none_in_the_sde(weight):
    """f x - g^2 (v - w h)/2 with v = s - h, as the public code writes it for VE; its SDE is that of w = 1."""
    bridge = VE(T=2.0)
    _, drift, g2, score, h = terms(bridge)
    own, churn = ddbm_weights(bridge, weight)
    ours = drift - g2 * (score / 2 - own * h)
    torch.testing.assert_close(ours, drift - g2 * ((score - h) - weight * h) / 2)
    assert churn == 1
    assert ddbm_weights(VP(), weight) == (weight, weight)


# Walks


@pytest.mark.parametrize("bridge", LINEAR, ids=str)
def test_weight_one_is_no_guidance(bridge):
    xT = torch.randn(6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, grid = perfect(bridge), karras_grid(bridge, 6)
    for plain, weighted in ((Heun(), GuidedHeun(1.0)), (Hybrid(0.2), GuidedHybrid(1.0, 1.0, churn=0.2))):
        one, other = (
            sample(model, xT, grid, step, generator=torch.Generator().manual_seed(1)) for step in (plain, weighted)
        )
        assert torch.equal(one.x0, other.x0)
        assert one.nfe == other.nfe


def test_less_weight_keeps_the_answer_nearer_to_xT():
    bridge, xT = VP(), torch.full((1, 1), 4.0, dtype=torch.float64)
    grid = karras_grid(bridge, 40, first=0.9999)
    found = [sample(perfect(bridge), xT, grid, GuidedHeun(w)).x0.item() for w in (0.5, 1.0, 1.5)]
    assert found[0] > found[1] > found[2]


# What is refused


def test_what_is_refused():
    for weight in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="weight is"):
            GuidedHeun(weight)
        with pytest.raises(ValueError, match="churn_weight is"):
            GuidedHybrid(1.0, weight)
        with pytest.raises(ValueError, match="weight is"):
            ddbm_weights(VP(), weight)
    with pytest.raises(ValueError, match="churn must lie between 0 and 1"):
        GuidedHybrid(1.0, 1.0, churn=0.0)
    xT = torch.zeros(2, 1, dtype=torch.float64)
    for bridge in (Flow(), I2SB()):
        with pytest.raises(ValueError, match="has no h"):
            sample(BridgeModel(Fixed(xT), bridge, conditional=True), xT, bridge.grid(2), GuidedHeun(0.5))
    with pytest.raises(ValueError, match="use Markov"):
        sample(BridgeModel(Fixed(xT), VP()), xT, VP().grid(2), GuidedHeun(0.5))
    with pytest.raises(ValueError, match="the drift is infinite at T"):
        sample(perfect(VP()), xT, karras_grid(VP(), 3), GuidedHybrid(0.5, 0.5))
