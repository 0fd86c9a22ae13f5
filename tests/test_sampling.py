"""From xT to x0: calls counted, orders of accuracy, the exact law of a Gaussian, strictness."""

from itertools import pairwise

import pytest
import torch
from couplings import plane
from torch import nn

from ibmd_lite.bridges import DBIMI2SB, I2SB, VE, VP, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.model import BridgeModel, Scalings, Source
from ibmd_lite.sampling import DBIM, EulerMaruyama, Heun, Hybrid, Markov, karras_grid, multistep_weights, sample

LINEAR = [Brownian(eps=0.7), VP(), VE(T=2.0), ContinuousI2SB(1.0)]
TABLES = [I2SB(1.0, n=200), DBIMI2SB(1.0, n=200), ResShift()]
ALL = [*LINEAR, Flow(), *TABLES]


def each(*families):
    return pytest.mark.parametrize("bridge", families, ids=str)


class PlainTime:
    """x0 prediction that hands the network t itself."""

    def scalings(self, bridge, t):
        return Scalings(torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t), t)


class Perfect(nn.Module):
    """The optimal denoiser of a Gaussian coupling, which counts its calls and keeps its last answer."""

    def __init__(self, truth, bridge):
        super().__init__()
        self.truth, self.bridge, self.calls, self.answer = truth, bridge, 0, None

    def forward(self, xt, time, xT=None):
        self.calls += 1
        assert bool((time == time[0]).all())
        from_xt, from_xT, offset = self.truth.denoiser(self.bridge, time[:1], conditional=xT is not None)
        self.answer = xt @ from_xt[0].T + offset[0] + (0 if xT is None else xT @ from_xT[0].T)
        return self.answer


def perfect(bridge, conditional=True, truth=None):
    return BridgeModel(Perfect(truth or plane(), bridge), bridge, conditional=conditional, prediction=PlainTime())


def some(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


# Cost


@each(*ALL)
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("conditional", [False, True])
def test_every_network_call_is_counted(bridge, steps, conditional):
    for step in (Markov(), Markov(noise=0.0), DBIM(), DBIM(eta=0.7), DBIM(eta=1.0)):
        model = perfect(bridge, conditional)
        result = sample(model, some(3, 2), bridge.grid(steps), step)
        assert (result.nfe, model.network.calls) == (steps, steps)
        assert bool(result.x0.isfinite().all())


@each(*LINEAR, Flow())
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_heun_calls_twice_but_at_the_ends(bridge, steps):
    """2n - 1 calls; out of a pinned T the first step is one DBIM step, of one call."""
    below = bridge.grid(steps).clone()
    below[0] *= 0.9999
    singular = not isinstance(bridge, Flow) and steps > 1
    for grid, calls in ((below, 2 * steps - 1), (bridge.grid(steps), 2 * steps - 1 - singular)):
        model = perfect(bridge)
        result = sample(model, some(3, 2), grid, Heun())
        assert (result.nfe, model.network.calls) == (calls, calls)
        assert bool(result.x0.isfinite().all())


@each(*LINEAR)
@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("below", [1.0, 0.9999])
def test_the_hybrid_calls_thrice_but_in_the_last_interval(bridge, steps, below):
    model = perfect(bridge)
    result = sample(model, some(3, 2), karras_grid(bridge, steps, first=below * bridge.T), Hybrid())
    assert (result.nfe, model.network.calls) == (3 * steps - 1, 3 * steps - 1)
    assert bool(result.x0.isfinite().all())


@each(*LINEAR, *TABLES)
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_a_higher_order_costs_no_call_and_no_draw(bridge, order, steps):
    model, draws = perfect(bridge), some(2, 3, 2)[: 1 + (bridge.end_std > 0)]
    result = sample(model, some(3, 2), bridge.grid(steps), DBIM(order=order), noise=draws)
    assert (result.nfe, model.network.calls) == (steps, steps)
    assert bool(result.x0.isfinite().all())


# What comes out


@each(*LINEAR, ResShift())
@pytest.mark.parametrize("step", [Markov(), DBIM(), DBIM(eta=0.5), DBIM(eta=1.0), DBIM(order=3)], ids=str)
def test_the_last_step_into_zero_returns_the_prediction(bridge, step):
    model = perfect(bridge)
    result = sample(model, some(3, 2), bridge.grid(4), step)
    torch.testing.assert_close(result.x0, model.network.answer, rtol=1e-12, atol=1e-12)


@each(*ALL)
def test_states_are_kept_where_asked_for(bridge):
    xT = some(3, 2)
    result = sample(perfect(bridge), xT, bridge.grid(4), keep_states=True)
    assert len(result.states) == 5
    assert torch.equal(result.states[-1], result.x0)
    assert torch.equal(result.states[0], xT) == (bridge.end_std == 0)
    assert sample(perfect(bridge), xT, bridge.grid(4)).states == []


def exact_path(bridge, truth, xT, t, start):
    """The probability-flow solution through xT at ``start``: (xt - mean)/std is constant, in one dimension."""

    def law(t):
        a, b, c = bridge.coefficients(t.reshape(1))
        return a * xT + b * (truth.A * xT + truth.m), (b**2 * truth.spread + c**2).sqrt()

    (mean, std), (first_mean, first_std) = law(t), law(start)
    return mean + std * (xT - first_mean) / first_std


@each(Brownian(eps=0.7), VP(), VE(T=2.0))
def test_heun_is_of_second_order(bridge):
    truth, xT = GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69), some(20, 1)
    grids = [torch.linspace(0.8, 0.1, n + 1, dtype=torch.float64) * bridge.T for n in (16, 32, 64)]
    expected = exact_path(bridge, truth, xT, grids[0][-1], grids[0][0])
    errors = [
        (sample(perfect(bridge, truth=truth), xT, grid, Heun()).x0 - expected).abs().max().item() for grid in grids
    ]
    assert errors[-1] < 2e-3
    for coarse, fine in pairwise(errors):
        assert 3.3 < coarse / fine < 5, errors  # 4 for order two; 2 for order one


@each(Brownian(eps=0.7), VP(), VE(T=2.0))
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dbim_steps_have_their_order(bridge, order):
    """One step of order one at either end costs order three its third: both end at two."""
    truth, xT = GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69), some(20, 1)
    grids = [torch.linspace(0.8, 0.1, n + 1, dtype=torch.float64) * bridge.T for n in (32, 64, 128)]
    expected, model = exact_path(bridge, truth, xT, grids[0][-1], grids[0][0]), perfect(bridge, truth=truth)
    errors = [(sample(model, xT, grid, DBIM(order=order)).x0 - expected).abs().max().item() for grid in grids]
    for coarse, fine in pairwise(errors):
        assert (1.7 < coarse / fine < 2.3) if order == 1 else coarse / fine > 3.2, errors


@each(*LINEAR, DBIMI2SB(1.0, n=200), ResShift())
@pytest.mark.parametrize("order", [1, 2, 3])
def test_multistep_weights_are_exact_for_polynomials(bridge, order):
    """x0_hat = l^j with j < order: the mean of l^j under e^l over the step, by a fine quadrature."""
    times = bridge.grid(14)[3 : 4 + order]
    _, b, c = bridge.coefficients(times)
    level = (b / c).log()
    now, later = level[-2], level[-1]
    fine = torch.linspace(0, 1, 20001, dtype=torch.float64) * (later - now) + now
    weights = torch.tensor(multistep_weights(bridge, list(times[:-1].flip(0)), times[-1]), dtype=torch.float64)
    assert weights.sum().item() == pytest.approx(1, rel=1e-9)
    for j in range(order):
        expected = torch.trapezoid(fine.exp() * fine**j, fine) / (later.exp() - now.exp())
        assert (weights @ level[:-1].flip(0) ** j).item() == pytest.approx(expected.item(), rel=1e-6)


@each(*LINEAR)
def test_the_reverse_sde_is_the_posterior_of_a_short_step(bridge):
    xt, x0 = some(2, 3, 2)
    t = torch.tensor(0.4 * bridge.T, dtype=torch.float64)
    s = t - 1e-6 * bridge.T
    from_xt, from_x0, std = bridge.posterior(t, s)
    drift, g = bridge.reverse_sde(xt, x0, t.expand(3))
    torch.testing.assert_close((from_xt * xt + from_x0 * x0 - xt) / (s - t), drift, rtol=1e-4, atol=1e-5)
    assert g[0].item() == pytest.approx((std / (t - s).sqrt()).item(), rel=1e-4)


def spread_error(bridge, grid, step):
    """Relative error of the spread of x0 given xT, one dimension, exact denoiser."""
    truth = GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69)
    draws = 2 * len(grid)
    noise = torch.cat([torch.zeros(1, draws), torch.eye(draws)]).T[..., None].double()
    xT = torch.ones(draws + 1, 1, dtype=torch.float64)
    x0 = sample(perfect(bridge, truth=truth), xT, grid, step, noise=noise).x0
    assert x0[0].item() == pytest.approx(0.9, abs=1e-3)
    return (x0[1:] - x0[0]).norm().item() / 0.8 - 1


def both_ends(bridge, steps):
    """Times sin^2, dense at both ends: even steps in log(b/c) but for the tails."""
    angle = torch.linspace(torch.pi / 2, 0, steps + 1, dtype=torch.float64)
    return bridge.T * angle.sin().square()


def test_out_of_a_pinned_end_hybrid_and_multistep_find_the_spread_and_heun_does_not():
    bridge = Brownian()
    assert spread_error(bridge, bridge.grid(200), Heun()) > 0.02
    assert spread_error(bridge, both_ends(bridge, 200), Heun()) > 0.1
    hybrid = [spread_error(bridge, karras_grid(bridge, n), Hybrid()) for n in (10, 40, 160)]
    assert hybrid[1] == pytest.approx(0.034, abs=2e-3)  # what the docstring states
    assert hybrid[0] > 1.5 * hybrid[1] > 2 * hybrid[2] > 0
    for start in (0.9999, 1.0):  # DDBM's own start changes little: the noise comes from the churn
        assert spread_error(bridge, karras_grid(bridge, 40, first=start), Hybrid()) == pytest.approx(0.034, abs=2e-3)
    errors = {order: abs(spread_error(bridge, both_ends(bridge, 40), DBIM(order=order))) for order in (1, 2, 3)}
    assert errors[1] > 4 * errors[3] > 4 * 0.9 * errors[2]
    assert errors[2] < 0.005


def test_heun_moves_one_marginal_of_a_flow_into_the_other():
    """Unconditional, in one dimension: x0 = mean_0 + std_0 (xT - mean_T)/std_T."""
    truth, xT = GaussianCoupling(0.6, 0.3, 0.8, 0.2, 1.69), some(20, 1)
    expected = (0.6 * 0.2 + 0.3) + (0.6**2 * 1.69 + 0.8**2) ** 0.5 * (xT - 0.2) / 1.3
    errors = [
        (sample(perfect(Flow(), False, truth), xT, Flow().grid(n), Heun()).x0 - expected).abs().max().item()
        for n in (32, 64, 128)
    ]
    assert errors[-1] < 1e-3
    assert 3.3 < errors[0] / errors[1] < 5
    assert 3.3 < errors[1] / errors[2] < 5


def law_of_samples(model, xT, grid, step):
    """Mean and covariance of x0 given one xT, exactly: with an affine network x0 is affine in the noise."""
    draws = len(grid) + 1  # at least as many as the steps use
    impulses = torch.eye(2 * draws, dtype=torch.float64).reshape(2 * draws, draws, 2)
    noise = torch.cat([torch.zeros(1, draws, 2, dtype=torch.float64), impulses]).transpose(0, 1)
    x0 = sample(model, xT.expand(2 * draws + 1, 2), grid, step, noise=noise).x0
    return x0[0], (x0[1:] - x0[0]).T @ (x0[1:] - x0[0])


@each(*LINEAR, I2SB(1.0, n=200), ResShift())
@pytest.mark.parametrize("conditional", [False, True])
def test_markov_steps_have_exactly_the_predicted_law(bridge, conditional):
    truth, grid, xT = plane(), bridge.grid(6), some(1, 2)
    mean, covariance = law_of_samples(perfect(bridge, conditional), xT, grid, Markov())
    expected = truth.sampled(bridge, grid, conditional=conditional)
    torch.testing.assert_close(mean, expected.A @ xT[0] + expected.m, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(covariance, expected.spread, rtol=1e-9, atol=1e-11)


@each(*LINEAR)
@pytest.mark.parametrize("step", [Markov(), DBIM(eta=1.0), DBIM(eta=0.5), DBIM(eta=0.0)], ids=str)
def test_samples_approach_the_law_of_x0_given_xT(bridge, step):
    """The mean is exact at any number of steps; the covariance's error falls as 1/steps."""
    truth, xT = plane(), some(1, 2)
    errors = []
    for steps in (25, 50, 100):
        mean, covariance = law_of_samples(perfect(bridge), xT, bridge.grid(steps), step)
        torch.testing.assert_close(mean, truth.A @ xT[0] + truth.m, rtol=1e-9, atol=1e-11)
        errors.append((covariance - truth.spread).abs().max().item())
    assert errors[2] < 0.05
    assert errors[0] / errors[1] > 1.5
    assert errors[1] / errors[2] > 1.5


@each(*LINEAR, ResShift())
def test_dbim_with_eta_one_walks_as_markov_does(bridge):
    xT, noise = some(3, 2), some(7, 3, 2)
    found, expected = (
        sample(perfect(bridge), xT, bridge.grid(6), step, noise=noise).x0 for step in (DBIM(eta=1.0), Markov())
    )
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_without_noise_markov_steps_follow_the_flow():
    """Markov(noise=0) is the OT-ODE: on straight lines, an Euler step of Flow's velocity."""
    xT, grid = some(3, 2), Flow().grid(5)
    result = sample(perfect(Flow(), False), xT, grid, Markov(noise=0.0), keep_states=True)
    x = xT
    for t, s, state in zip(grid[:-1], grid[1:], result.states[1:], strict=True):
        x0_hat = plane().posterior_mean(Flow(), x, t.expand(3))
        x = x + (s - t) * Flow().velocity(x, x0_hat, xT, t.expand(3))
        torch.testing.assert_close(state, x)


# Randomness


@each(*ALL)
def test_a_generator_decides_and_leaves_the_global_state_alone(bridge):
    xT, grid = some(3, 2), bridge.grid(3)
    before = torch.get_rng_state()
    first, again, other = (
        sample(perfect(bridge), xT, grid, generator=torch.Generator().manual_seed(seed)).x0 for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == isinstance(bridge, Flow)


@each(Brownian(), ResShift())
def test_given_noise_is_what_a_generator_would_draw(bridge):
    xT, grid = some(3, 2), bridge.grid(4)
    generator = torch.Generator().manual_seed(3)
    expected = sample(perfect(bridge), xT, grid, generator=generator).x0
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(3 + (bridge.end_std > 0))]
    assert torch.equal(sample(perfect(bridge), xT, grid, noise=noise).x0, expected)
    with pytest.raises(ValueError, match=r"a draw of shape \(3, 2\) at every noisy step, got no more draws"):
        sample(perfect(bridge), xT, grid, noise=noise[:-1])
    with pytest.raises(ValueError, match=r"a draw of shape \(3, 2\) at every noisy step, got one of shape \(3, 1\)"):
        sample(perfect(bridge), xT, grid, noise=[x[:, :1] for x in noise])


def test_a_deterministic_sampler_draws_only_at_the_start():
    xT, noise = some(3, 2), some(1, 3, 2)
    grid = Brownian().grid(5)
    sample(perfect(Brownian()), xT, grid, DBIM(), noise=noise)
    sample(perfect(Brownian()), xT, grid, Heun(), noise=noise)
    sample(perfect(Brownian()), xT, grid, Markov(noise=0.0), noise=[])
    grid[0] = 0.999
    sample(perfect(Brownian()), xT, grid, Heun(), noise=[])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_samples_have_the_dtype_of_the_source(dtype):
    """The network is told float32 times at least: bfloat16 would round 0.999 to 1."""
    asked = []

    class Network(nn.Module):
        def forward(self, xt, time):
            asked.append(model_times[-1])
            return xt

    class Prediction(PlainTime):
        def scalings(self, bridge, t):
            model_times.append(t)
            return super().scalings(bridge, t)

    model_times = []
    model = BridgeModel(Network(), Brownian(), prediction=Prediction())
    x0 = sample(model, some(2, 2).to(dtype), torch.tensor([0.999, 0.5, 0.0])).x0
    assert x0.dtype == dtype
    assert asked[0][0].item() == pytest.approx(0.999, abs=1e-7)


# Sources


def test_known_pixels_come_back():
    xT, mask = some(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    mask[..., :2] = 1
    model = BridgeModel(nn.Identity(), Brownian(), prediction=PlainTime())
    model.network.forward = lambda xt, time: xt + 1
    x0 = sample(model, Source(xT, mask=mask), Brownian().grid(3)).x0
    assert torch.equal(x0[..., 2:], xT[..., 2:])
    assert bool((x0[..., :2] != xT[..., :2]).all())


@pytest.mark.parametrize("step", [Markov(), DBIM(eta=0.0), DBIM(eta=0.0, order=2)], ids=repr)
def test_known_pixels_walk_the_bridge_between_themselves(step):
    """As in training: N(xT, c_t^2) at every time, whatever the network says of pixels that no loss taught it."""
    xT, mask = torch.full((4000, 1, 2, 1), 3.0, dtype=torch.float64), torch.zeros(4000, 1, 2, 1, dtype=torch.float64)
    mask[:, :, 0] = 1
    bridge = Brownian(0.5)
    model = BridgeModel(nn.Identity(), bridge, prediction=PlainTime())
    model.network.forward = lambda xt, time: 0 * xt + 100
    walked = sample(
        model, Source(xT, mask=mask), bridge.grid(5), step, generator=torch.Generator().manual_seed(0), keep_states=True
    )
    for t, state in zip(bridge.grid(5), walked.states, strict=True):
        known, spread = state[:, :, 1], bridge.coefficients(t)[2].item()
        assert known.mean().item() == pytest.approx(3, abs=0.05)
        assert known.std().item() == pytest.approx(spread, rel=0.05, abs=1e-12)


def test_a_network_gets_the_conditions_of_its_source():
    seen = []

    class Network(nn.Module):
        def forward(self, xt, time, label, task):
            seen.append((label.tolist(), task.tolist()))
            return xt

    model = BridgeModel(Network(), Brownian())
    sample(model, Source(some(2, 2), label=torch.tensor([3, 4]), task=1), Brownian().grid(2))
    assert seen == [([3, 4], [1, 1])] * 2


def test_sampling_builds_no_graph():
    model = BridgeModel(nn.Identity(), Brownian())
    model.network.forward = lambda xt, time: scale * xt
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    assert not sample(model, some(2, 2).requires_grad_(), Brownian().grid(2)).x0.requires_grad


@pytest.mark.parametrize(("xT", "message"), [(torch.full((2, 2), float("nan")), "NaN or infinite"), (3.0, "must be")])
def test_sources_are_checked_before_the_network_runs(xT, message):
    model = perfect(Brownian())
    with pytest.raises((ValueError, TypeError), match=message):
        sample(model, xT, Brownian().grid(2))
    assert model.network.calls == 0


# Refusals


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([0.0, 0.5, 1.0], "fall from T to 0"),
        ([1.0, 0.5, 0.5, 0.0], "fall from T to 0"),
        ([1.0], "at least two times"),
        ([], "at least two times"),
        ([[1.0, 0.0]], "at least two times"),
        ([1.0, float("nan"), 0.0], "fall from T to 0"),
        ([1.5, 0.5, 0.0], r"t must lie in \[0, T\] = \[0, 1\], got values from 0 to 1.5"),
        ([1.0, 0.5, -0.5], r"t must lie in \[0, T\]"),
    ],
)
def test_grids_that_are_no_way_down_are_refused(grid, message):
    model = perfect(Brownian())
    with pytest.raises(ValueError, match=message):
        sample(model, some(2, 2), torch.tensor(grid))
    assert model.network.calls == 0


@each(*TABLES)
def test_grids_off_the_table_are_refused(bridge):
    with pytest.raises(ValueError, match=r"knows the times 0, 1, ..., .* only, got \[2.5, 0.0\]"):
        sample(perfect(bridge), some(2, 2), torch.tensor([2.5, 0.0]))


@pytest.mark.parametrize("bridge", [Brownian(), VE(T=20.0), VE(T=80.0)], ids=str)  # 20 suffers from rounding
def test_the_karras_grid_falls_from_T_to_zero(bridge):
    grid = karras_grid(bridge, 5)
    assert len(grid) == 6
    assert grid[0] == bridge.T
    assert grid[-2].item() == pytest.approx(1e-4 * bridge.T)
    assert grid[-1] == 0
    roots = grid[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(4))
    assert karras_grid(bridge, 5, rho=1.0)[2].item() == pytest.approx(0.50005 * bridge.T)


def test_grids_and_steps_that_make_no_sense_are_refused():
    for arguments in ({"steps": 1}, {"steps": 5, "rho": 0.0}, {"steps": 5, "first": 2.0}, {"steps": 5, "last": 1.0}):
        with pytest.raises(ValueError, match="expected two steps or more, rho > 0 and 0 < last < first <= T = 1"):
            karras_grid(Brownian(), **arguments)
    with pytest.raises(ValueError, match=r"whole-number times only; use bridge.grid\(steps\)"):
        karras_grid(ResShift(), 5)
    for churn in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"churn must lie between 0 and 1, got {churn}"):
            Hybrid(churn=churn)
    for order in (0, 4, 1.5):
        with pytest.raises(ValueError, match=f"order must be 1, 2 or 3, got {order}"):
            DBIM(order=order)
    with pytest.raises(ValueError, match=r"order 2 is for the deterministic step, eta=0.0; got eta=0.5"):
        DBIM(eta=0.5, order=2)


def test_steps_refuse_models_they_cannot_walk_before_any_call():
    cases = [
        (perfect(Brownian(), conditional=False), Hybrid(), "needs its score; use Markov"),
        (perfect(Flow()), Hybrid(), "no SDE in continuous time"),
        (perfect(ResShift()), EulerMaruyama(), "no SDE in continuous time"),
        (perfect(Flow()), DBIM(order=2), r"log\(b/c\), and Flow.* has c = 0; use Heun"),
    ]
    for model, step, message in cases:
        with pytest.raises(ValueError, match=message):
            sample(model, some(2, 2), model.bridge.grid(3), step)
        assert model.network.calls == 0


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_amounts_of_noise_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"eta must lie in \[0, 1\], got {wrong}"):
        DBIM(eta=wrong)
    with pytest.raises(ValueError, match=rf"noise must lie in \[0, 1\], got {wrong}"):
        Markov(noise=wrong)


@each(*TABLES)
def test_heun_needs_continuous_time(bridge):
    with pytest.raises(
        ValueError, match="no continuous time, so no probability-flow ODE; sample it with Markov or DBIM"
    ):
        sample(perfect(bridge), some(2, 2), bridge.grid(3), Heun())
