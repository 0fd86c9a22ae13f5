"""Every family is three curves and one variance: exact at the ends, consistent in between, strict about its input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ibmd_lite.bridges import DBIMI2SB, I2SB, VE, VP, Brownian, ContinuousI2SB, Flow, ResShift, like

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")

LINEAR = [Brownian(), Brownian(eps=0.3, T=2.5), VP(), VP(0.5, 0.2, 2.0), VE(), VE(T=2.0)]
LINEAR += [ContinuousI2SB(), ContinuousI2SB(1.0)]
CONTINUOUS = [*LINEAR, Flow(), Flow(T=3.0)]
I2SB_TABLES = [I2SB(), I2SB(1.0), I2SB(0.3, n=100), DBIMI2SB()]
RESSHIFT = [ResShift(), ResShift(kappa=1.0, steps=4, min_noise_level=0.2)]
TABLES = [*I2SB_TABLES, *RESSHIFT]
CONSISTENT = [*CONTINUOUS, *RESSHIFT]
ALL = [*CONTINUOUS, *TABLES]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

fractions = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(1e-4, 1.0), st.floats(0.999, 1.0))
shapes = st.sampled_from([(), (1,), (5,), (2, 3), (2, 1, 2), (0,)])
dtypes = st.sampled_from([torch.float32, torch.float64])


def each(*families):
    return pytest.mark.parametrize("bridge", families, ids=str)


def at(bridge, fraction, shape=(), dtype=torch.float64):
    """The time at a fraction of T, the nearest allowed one where there is a table."""
    t = torch.full(shape, fraction, dtype=torch.float64) * bridge.T
    t = t if bridge.times is None else t.round()
    return t.to(dtype).clamp_max(bridge.T)


@st.composite
def intervals(draw, families, latest=1.0):
    """A family and two of its times, s < t."""
    bridge = draw(st.sampled_from(families))
    if bridge.times is not None:
        last = int(latest * bridge.T)
        t = draw(st.integers(1, last))
        return bridge, torch.tensor(float(t)).double(), torch.tensor(float(draw(st.integers(0, t - 1)))).double()
    t = draw(st.floats(1e-3, latest)) * bridge.T
    s = draw(st.one_of(st.just(0.0), st.floats(1e-3, 0.999))) * t
    return bridge, torch.tensor(t).double(), torch.tensor(s).double()


# Values


@given(st.sampled_from(ALL), fractions, shapes, dtypes)
def test_curves_are_finite_and_keep_shape_and_dtype(bridge, fraction, shape, dtype):
    t = at(bridge, fraction, shape, dtype)
    for curve in bridge.coefficients(t) + (bridge.prior(t) or ()):
        assert curve.shape == shape
        assert curve.dtype == dtype
        assert bool(curve.isfinite().all())
        assert bool((curve >= 0).all())


@given(intervals(ALL), shapes, dtypes, st.floats(0, 1))
def test_weights_are_finite_and_keep_shape_and_dtype(interval, shape, dtype, eta):
    bridge, t, s = interval
    t, s = (x.to(dtype).expand(shape) for x in (t, s))
    for weight in (*bridge.posterior(t, s), *bridge.step_weights(t, s, eta)):
        assert weight.shape == shape
        assert weight.dtype == dtype
        assert bool(weight.isfinite().all())


@each(*CONTINUOUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_a_pinned_bridge_are_exact(bridge, dtype):
    a, b, c = bridge.coefficients(torch.tensor([0.0, bridge.T], dtype=dtype))
    assert a.tolist() == [0, 1]
    assert b.tolist() == [1, 0]
    assert c.tolist() == [0, 0]
    x0, xT, noise = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    xt = bridge.sample(x0, xT, torch.tensor([0.0, bridge.T], dtype=dtype), noise)
    assert torch.equal(xt, torch.stack([x0[0], xT[1]]))
    assert bridge.start(xT) is xT


@each(*TABLES)
def test_the_ends_of_a_table_are_what_was_published(bridge):
    a, b, c = bridge.coefficients(torch.tensor([0.0, bridge.T]).double())
    if isinstance(bridge, ResShift):  # a clean time, and an end that is not pinned
        assert (a[0], b[0], c[0]) == (0, 1, 0)
        torch.testing.assert_close(torch.stack([a[1], c[1]]), torch.tensor([0.9801, 0.99 * bridge.kappa]).double())
        assert bridge.end_std == pytest.approx(c[1].item())
    else:
        assert c.tolist() == pytest.approx([0.01, 0.01], rel=0.02)
        assert bridge.end_std == 0


@given(st.sampled_from(LINEAR), st.one_of(st.floats(1e-4, 1), st.floats(0.999, 1 - 1e-6)))
def test_float32_is_as_good_as_float64_rounded(bridge, fraction):
    t = at(bridge, fraction, (), torch.float32)
    s = t / 2
    exact = (*bridge.coefficients(t.double()), *bridge.prior(t.double()), *bridge.posterior(t.double(), s.double()))
    found = (*bridge.coefficients(t), *bridge.prior(t), *bridge.posterior(t, s))
    torch.testing.assert_close(torch.stack(found).double(), torch.stack(exact), rtol=2e-6, atol=0)


@each(*TABLES)
def test_float32_tables_are_the_rounded_ones(bridge):
    torch.testing.assert_close(
        torch.stack(bridge.coefficients(bridge.times.float())),
        torch.stack(bridge.coefficients(bridge.times)).float(),
        rtol=0,
        atol=0,
    )
    t = bridge.times[1:]
    found, exact = bridge.posterior(t.float(), t.float() - 1), bridge.posterior(t, t - 1)
    torch.testing.assert_close(torch.stack(found), torch.stack(exact).float(), rtol=0, atol=0)


@pytest.mark.parametrize("beta_max", [0.3, 1.0])
def test_continuous_i2sb_is_the_limit_of_the_table(beta_max):
    smooth, table = ContinuousI2SB(beta_max), I2SB(beta_max)
    total = smooth.prior(torch.ones(1).double())[1].square().item()
    assert total == pytest.approx({0.3: 0.1410, 1.0: 0.2470}[beta_max], abs=1e-4)
    assert total == pytest.approx(table.variance[-1].item(), rel=1e-3)
    t = (table.times + 0.5) / 1000
    for curve, discrete, atol in zip(
        smooth.coefficients(t), table.coefficients(table.times), (4e-4, 4e-4, 3e-3), strict=True
    ):
        torch.testing.assert_close(curve, discrete, rtol=0, atol=atol)


@each(*ALL)
@pytest.mark.parametrize("device", DEVICES)
def test_every_device_computes_the_same(bridge, device):
    t = bridge.grid(3)[:-1].float()
    s = bridge.grid(3)[1:].float()
    for found, expected in zip(bridge.coefficients(t.to(device)), bridge.coefficients(t), strict=True):
        torch.testing.assert_close(found.cpu(), expected)
    for found, expected in zip(bridge.posterior(t.to(device), s.to(device)), bridge.posterior(t, s), strict=True):
        torch.testing.assert_close(found.cpu(), expected)


@each(*CONTINUOUS)
def test_curves_never_look_at_values_on_an_accelerator(bridge):
    """A tensor on "meta" has no values; looking at one raises, as it would stall the queue of a GPU."""
    t = torch.empty(4, device="meta")
    x = torch.empty(4, 3, device="meta")
    assert bridge.sample(x, x, t).shape == (4, 3)
    assert all(weight.shape == (4,) for weight in bridge.posterior(t, t / 2))


# Consistency


@given(intervals(CONSISTENT))
def test_posterior_carries_one_marginal_into_the_other(interval):
    """Chapman-Kolmogorov: q(xs|xt,x0) averaged over q(xt|x0,xT) is q(xs|x0,xT)."""
    bridge, t, s = interval
    (at_, bt, ct), (a, b, c) = bridge.coefficients(t), bridge.coefficients(s)
    kx, k0, std = bridge.posterior(t, s)
    torch.testing.assert_close(kx * at_, a, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(kx * bt + k0, b, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close((kx * ct) ** 2 + std**2, c**2, rtol=1e-12, atol=1e-15)


@given(intervals(ALL), st.floats(0, 1))
def test_steps_of_every_eta_keep_the_marginals(interval, eta):
    bridge, t, s = interval
    (at_, bt, ct), (a, b, c) = bridge.coefficients(t), bridge.coefficients(s)
    w = bridge.step_weights(t, s, eta)
    torch.testing.assert_close(w.from_xt * at_ + w.from_xT, a, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(w.from_xt * bt + w.from_x0, b, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close((w.from_xt * ct) ** 2 + w.std**2, c**2, rtol=1e-12, atol=1e-14)


@given(intervals([*LINEAR, *RESSHIFT], latest=0.999))
def test_eta_one_is_the_markov_posterior(interval):
    bridge, t, s = interval
    w, p = bridge.step_weights(t, s, 1.0), bridge.posterior(t, s)
    assert abs(w.from_xT.item()) <= 1e-12
    assert abs((w.from_xt - p.from_xt).item()) <= 1e-12
    assert abs((w.from_x0 - p.from_x0).item()) <= 1e-12
    assert w.std == p.std


@given(intervals(ALL, latest=0.999))
def test_eta_scales_the_noise_and_zero_has_none(interval):
    bridge, t, s = interval
    std = bridge.posterior(t, s).std
    assert bridge.step_weights(t, s, 0.0).std == 0
    torch.testing.assert_close(bridge.step_weights(t, s, 0.4).std, 0.4 * std, rtol=1e-14, atol=0)


@given(st.sampled_from([*LINEAR, *I2SB_TABLES]), st.floats(0.001, 0.999), st.floats(0, 1))
def test_the_first_step_from_xT_draws_all_of_the_noise(bridge, fraction, eta):
    end, s = at(bridge, 1.0), at(bridge, fraction)
    w, (a, b, c) = bridge.step_weights(end, s, eta), bridge.coefficients(s)
    assert w == (a, 0, b, c)


@pytest.mark.parametrize(("beta_max", "on_grids", "of_any_pair"), [(0.3, 7.0e-4, 0.0995), (1.0, 2.2e-3, 0.329)])
def test_the_i2sb_table_has_its_own_posterior(beta_max, on_grids, of_any_pair):
    """Its sigma_T depends on the index, so eta=1 is near the posterior on even grids, not equal to it."""
    bridge = I2SB(beta_max)
    t, s = (x.flatten() for x in torch.meshgrid(bridge.times, bridge.times, indexing="ij"))
    t, s = t[s < t], s[s < t]
    variance = bridge.prior(bridge.times)[1].square()
    now, past = variance[t.long()], variance[s.long()]
    p = bridge.posterior(t, s)
    torch.testing.assert_close(p.from_xt, past / now, rtol=1e-12, atol=0)
    torch.testing.assert_close(p.from_xt + p.from_x0, torch.ones_like(t), rtol=0, atol=1e-15)
    torch.testing.assert_close(p.std.square(), past * (1 - past / now), rtol=1e-9, atol=0)
    assert bridge.step_weights(t, s, 1.0).from_xT.abs().max().item() == pytest.approx(of_any_pair, rel=5e-3)
    grids = [bridge.grid(n) for n in (5, 10, 20, 50, 100, 200, 500, 999)]
    largest = max(bridge.step_weights(g[:-1], g[1:], 1.0).from_xT.abs().max().item() for g in grids)
    assert largest == pytest.approx(on_grids, rel=0.03)


def test_flow_is_brownian_motion_without_noise():
    quiet, flow = Brownian(eps=1e-20), Flow()
    t, s = torch.rand(2, 50, generator=torch.Generator().manual_seed(0)).double().sort(0).values.flip(0)
    for found, limit in zip(
        (*flow.coefficients(t), *flow.posterior(t, s), *flow.step_weights(t, s, 0.5)),
        (*quiet.coefficients(t), *quiet.posterior(t, s), *quiet.step_weights(t, s, 0.5)),
        strict=True,
    ):
        torch.testing.assert_close(found, limit, rtol=1e-12, atol=1e-9)
    assert flow.prior(t) is None


# Differential equations


@given(st.sampled_from(CONTINUOUS), st.floats(0.02, 0.98), st.integers(0, 100))
def test_velocity_is_the_derivative_of_the_bridge(bridge, fraction, seed):
    """With x0, xT and the noise held, xt = a xT + b x0 + c noise moves with the probability-flow velocity."""
    t, h = at(bridge, fraction, (1,)), 1e-7 * bridge.T
    x0, xT, noise = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before, now, after = (bridge.sample(x0, xT, t + step, noise) for step in (-h, 0, h))
    found = bridge.velocity(now, x0, xT, t)
    torch.testing.assert_close(found, (after - before) / (2 * h), rtol=1e-6, atol=1e-6 / bridge.T)


@given(st.sampled_from(LINEAR), st.floats(0.02, 0.98))
def test_rates_are_those_of_the_prior(bridge, fraction):
    """alpha' = f alpha and (sigma^2)' = 2 f sigma^2 + g^2; the KL weight is made of them."""
    t, h = at(bridge, fraction), 1e-7 * bridge.T
    (alpha, sigma), (alpha_before, sigma_before), (alpha_after, sigma_after) = map(bridge.prior, (t, t - h, t + h))
    f, g2 = bridge.rates(t)
    torch.testing.assert_close((alpha_after - alpha_before) / (2 * h), f * alpha, rtol=1e-7, atol=1e-9)
    growth = (sigma_after**2 - sigma_before**2) / (2 * h)
    torch.testing.assert_close(growth, 2 * f * sigma**2 + g2, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(bridge.kl_weight(t), g2 * alpha**2 / (2 * sigma**4))


@each(*TABLES)
def test_a_table_has_no_velocity(bridge):
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"no probability-flow ODE; sample it with Markov or DBIM"):
        bridge.velocity(x, x, x, torch.ones(1))


# Drawing


@given(st.sampled_from(ALL), fractions, st.sampled_from([(2,), (3, 4), (2, 3, 2, 2)]), dtypes)
def test_sample_is_the_formula(bridge, fraction, shape, dtype):
    x0, xT, noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    t = at(bridge, fraction, shape[:1], dtype)
    t[0] = at(bridge, 0.5, (), dtype)  # times differ within a batch
    rows = []
    for index in range(shape[0]):
        a, b, c = bridge.coefficients(t[index])
        rows.append(a * xT[index] + b * x0[index] + c * noise[index])
    torch.testing.assert_close(bridge.sample(x0, xT, t, noise), torch.stack(rows))


@each(*ALL)
def test_sample_is_differentiable_in_all_it_mixes(bridge):
    inputs = [torch.randn(1, 2, dtype=torch.float64).requires_grad_() for _ in range(3)]
    x0, xT, noise = inputs
    t = at(bridge, 0.4, (1,))
    bridge.sample(x0, xT, t, noise).sum().backward()
    a, b, c = bridge.coefficients(t)
    for x, curve in ((xT, a), (x0, b), (noise, c)):
        torch.testing.assert_close(x.grad, curve.expand(1, 2))


def test_a_bridge_draws_its_own_noise():
    bridge, x, t = Brownian(eps=4.0), torch.zeros(20_000, 1), torch.full((20_000,), 0.5)
    assert bridge.sample(x, x, t).std().item() == pytest.approx(1.0, abs=0.03)  # c = 1; six standard errors
    unpinned = ResShift()
    assert unpinned.start(x).std().item() == pytest.approx(1.98, abs=0.06)
    assert torch.equal(unpinned.start(x, torch.ones_like(x)), x + 1.98)


@each(*ALL, Brownian(T=0.3))
def test_training_times(bridge):
    t = bridge.draw_times(4000, torch.Generator().manual_seed(1))
    assert t.shape == (4000,)
    assert t.dtype == torch.float32
    bridge.check_times(t)
    assert torch.equal(t, bridge.draw_times(4000, torch.Generator().manual_seed(1)))
    if bridge.times is None:
        assert bridge.draw_times(3, device="meta").device.type == "meta"
        assert t.min() >= 0.99e-4 * bridge.T
        assert t.mean().item() == pytest.approx(bridge.T / 2, rel=0.06)  # six standard errors
    else:
        assert bool((bridge.coefficients(t)[2] > 0).all())
        assert t.max() > 0.99 * bridge.T


@each(*ALL)
def test_grids_fall_from_the_end_to_zero(bridge):
    for steps in (1, 2, 3):
        grid = bridge.grid(steps)
        assert grid.shape == (steps + 1,)
        assert grid.dtype == torch.float64
        assert (grid[0], grid[-1]) == (bridge.T, 0)
        assert bool((grid.diff() < 0).all())
        bridge.check_times(grid)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        bridge.grid(0)


@each(*TABLES)
def test_a_grid_cannot_be_finer_than_its_table(bridge):
    last = int(bridge.T)
    assert torch.equal(bridge.grid(last), bridge.times.flip(0))
    with pytest.raises(ValueError, match=f"at most {last} steps; got {last + 1}"):
        bridge.grid(last + 1)


# Refusals


@each(*ALL)
@pytest.mark.parametrize("method", ["coefficients", "prior", "posterior"])
def test_times_outside_the_bridge_are_refused(bridge, method):
    def call(t):
        return bridge.posterior(t, torch.zeros_like(t)) if method == "posterior" else getattr(bridge, method)(t)

    if method == "prior" and bridge.prior(torch.ones(1)) is None:
        return
    for wrong in (-1.0, bridge.T + 1, float("nan")):
        with pytest.raises(ValueError, match=rf"t must lie in \[0, T\] = \[0, {bridge.T:g}\], got values from"):
            call(torch.tensor([0.0, wrong]))
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(TypeError, match=rf"float32 or float64, got {dtype}; use t.float\(\)"):
            call(torch.ones(2, dtype=dtype))


@each(*CONTINUOUS, *TABLES)
def test_the_earlier_time_of_a_posterior_is_checked_too(bridge):
    end = torch.tensor([bridge.T])
    with pytest.raises(ValueError, match="t must lie in"):
        bridge.posterior(end, end + 1)


@each(*TABLES)
def test_times_off_the_table_are_refused(bridge):
    with pytest.raises(ValueError, match=rf"knows the times 0, 1, ..., {bridge.T:g} only, got \[1.5\]"):
        bridge.coefficients(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="only, got"):
        bridge.posterior(torch.tensor([2.0]), torch.tensor([0.5]))


def test_shapes_that_would_broadcast_are_refused():
    bridge, x = Brownian(), torch.zeros(3, 2)
    for t in (torch.rand(3, 1), torch.rand(1), torch.rand(2), torch.tensor(0.5)):
        with pytest.raises(ValueError, match=r"\(3,\).*one time per sample.*got .*; use t.reshape\(-1\)"):
            bridge.sample(x, x, t)
    for other in (torch.zeros(1, 2), torch.zeros(3), torch.zeros(3, 1)):
        with pytest.raises(ValueError, match=r"x0 and xT must have one shape, got \(3, 2\) and"):
            bridge.sample(x, other, torch.rand(3))


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (Brownian, {"eps": 0.0}, "Brownian: eps must be a positive number, got 0.0"),
        (Brownian, {"T": -1.0}, "T must be a positive number, got -1.0"),
        (VP, {"beta_d": float("nan")}, "beta_d must be a positive number, got nan"),
        (VE, {"T": float("inf")}, "T must be a positive number, got inf"),
        (I2SB, {"beta_max": 0}, "beta_max must be a positive number"),
        (I2SB, {"n": 5}, "even number of at least 4 indices, got 5"),
        (I2SB, {"n": 2}, "even number of at least 4 indices, got 2"),
        (ResShift, {"steps": 1}, "at least 2 steps, got 1"),
        (ResShift, {"kappa": -2.0}, "kappa must be a positive number, got -2.0"),
        (Flow, {"T": 0}, "Flow: T must be a positive number, got 0"),
    ],
)
def test_parameters_without_meaning_are_refused(family, arguments, message):
    with pytest.raises(ValueError, match=message):
        family(**arguments)


def test_like_multiplies_a_batch():
    x = torch.ones(2, 3, 4, 4, dtype=torch.float64)
    scale = like(torch.tensor([1.0, 2.0]), x)
    assert scale.shape == (2, 1, 1, 1)
    assert scale.dtype == x.dtype
    assert torch.equal((scale * x).mean((1, 2, 3)), torch.tensor([1.0, 2.0]).double())
