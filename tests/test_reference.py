"""The package against numbers of published implementations (tests/reference), in float64, at the files' tolerances."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import DBIMI2SB, I2SB, VE, VP, Bridge, Brownian, Flow, ResShift
from ibmd_lite.distillation import ibmd_loss
from ibmd_lite.model import BBDM, DDBM, X0, BridgeModel, I2SBNoise, Scalings
from ibmd_lite.sampling import DBIM, EulerMaruyama, Heun, Hybrid, Interval, Markov, karras_grid, sample

FOLDER = Path(__file__).parent / "reference"
USED: set[str] = set()


@cache
def read(file: str) -> dict[str, dict]:
    return {item["id"]: item for item in json.loads((FOLDER / f"{file}.json").read_text())["items"]}


def items(file: str, *prefixes: str):
    """Parametrize over the items of a file whose id starts with one of the prefixes."""
    found = [item for name, item in read(file).items() if name.startswith(prefixes)]
    assert found, f"{file}.json holds no item {prefixes}"
    USED.update(f"{file}/{item['id']}" for item in found)
    return pytest.mark.parametrize("item", found, ids=[f"{file}-{item['id']}" for item in found])


def tensor(x) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def agree(item: dict, **found) -> None:
    """Every named quantity equals the recorded output of that name, in value and in shape."""
    for name, value in found.items():
        value = torch.stack(value) if isinstance(value, list) else torch.as_tensor(value)
        assert value.dtype == torch.float64, f"{name} is {value.dtype}"
        expected = tensor(item["outputs"][name])
        torch.testing.assert_close(value, expected, **item["tol"], msg=lambda text, name=name: f"{name}: {text}")


def bridge_of(item: dict) -> Bridge:
    p = item["params"]
    family = p.get("mode") or p.get("schedule")
    if family == "vp":
        return VP(p["beta_d"], p["beta_min"], p["T"])
    if family == "ve":
        return VE(p.get("T", p.get("sigma_max")))
    if family == "i2sb":
        return DBIMI2SB(p["beta_max"], p["n_timestep"])
    if "max_var" in p:
        return Brownian(eps=2 * p["max_var"])
    if "kappa" in p:
        return ResShift(p["kappa"], p["steps"], p["power"], p["etas_end"], p["min_noise_level"])
    name = item["id"].split("_")
    return I2SB(float(name[2].removeprefix("bmax")), int(name[1].removeprefix("N")))


def own_times(bridge: Bridge, t) -> torch.Tensor:
    """The package's time for a project's: DBIM names the I2SB indices by a time in [0, 1]."""
    return (bridge.T * tensor(t)).round() if isinstance(bridge, DBIMI2SB) else tensor(t)


def bbdm_m(item: dict, index) -> torch.Tensor:
    """BBDM's m at its indices, which is the time of a Brownian bridge."""
    k, n = tensor(index), item["params"]["num_timesteps"]
    if item["params"]["mt_type"] == "linear":
        return 0.001 + 0.998 * k / (n - 1)
    return torch.where(k == n - 1, 0.999, 1.0075 ** (n * k / (n - 1) - n))


class Denoiser(nn.Module):
    """An analytic denoiser as a network told 1000 t/T; ``clock`` turns that back into the project's time."""

    def __init__(self, item: dict, bridge: Bridge, clock=lambda t: t):
        super().__init__()
        self.item, self.bridge, self.clock = item["params"], bridge, clock
        self.answers: list[torch.Tensor] = []

    def forward(self, x, time, xT):
        t = time * self.bridge.T / 1000
        t = t if self.bridge.times is None else t.round()
        self.answers.append(self.affine(x, t, xT) if "affine" in self.item else self.gaussian(x, t, xT))
        return self.answers[-1]

    def affine(self, x, t, xT):
        p0, p1, p2 = self.item["affine"]
        return p0 * x + p1 * xT + p2 * math.sin(self.clock(t[0].item()))

    def gaussian(self, x, t, xT):
        m0, r, s = (self.item["gaussian"][name] for name in ("m0", "r", "s"))
        (a, b, _), (alpha, sigma) = self.bridge.coefficients(t[:1]), self.bridge.prior(t[:1])
        m = m0 + r * xT
        return m + alpha * s**2 / (alpha * b * s**2 + sigma**2) * (x - a * xT - b * m)


def clock_of(own, theirs):
    """The project's time at the grid time nearest to t."""
    pairs = list(zip(own, theirs, strict=True))
    return lambda t: min(pairs, key=lambda pair: abs(pair[0] - t))[1]


def walk(item: dict, bridge: Bridge, grid, step, *, xT="xT", noise=(), clock=lambda t: t):
    """Sample with the item's denoiser; returns the result and the denoiser's answers, whose number is the NFE."""
    network = Denoiser(item, bridge, clock)
    model = BridgeModel(network, bridge, conditional=True, prediction=X0())
    result = sample(model, tensor(item["inputs"][xT]), tensor(grid), step, noise=tensor(noise), keep_states=True)
    assert result.nfe == len(network.answers)
    return result, network.answers


# Coefficients


@items("i2sb", "coef")
def test_i2sb_tables(item):
    bridge, t = bridge_of(item), tensor(item["inputs"]["index"])
    agree(item, **dict(zip("abc", bridge.coefficients(t), strict=True)))
    agree(item, **dict(zip(("alpha", "sigma"), bridge.prior(t), strict=True)), sum_beta=bridge.variance[-1])


@items("ddbm", "coef")
def test_ddbm_curves(item):
    bridge, t = bridge_of(item), tensor(item["inputs"]["t"])
    agree(item, **dict(zip("abc", bridge.coefficients(t), strict=True)))
    agree(item, **dict(zip(("alpha", "sigma"), bridge.prior(t), strict=True)))


@items("dbim", "coef")
def test_dbim_curves(item):
    bridge = bridge_of(item)
    t = own_times(bridge, item["inputs"]["t"])
    agree(item, **dict(zip("abc", bridge.coefficients(t), strict=True)))
    agree(item, **dict(zip(("alpha", "sigma"), bridge.prior(t), strict=True)))
    if bridge.times is None:
        agree(item, **dict(zip(("f", "g2"), bridge.rates(t), strict=True)))
    else:
        agree(item, index=t)


@items("bbdm", "coef")
def test_bbdm_curves(item):
    bridge, m = bridge_of(item), bbdm_m(item, item["inputs"]["index"])
    agree(item, **dict(zip("abc", bridge.coefficients(m), strict=True)))
    agree(item, **dict(zip(("alpha", "sigma"), bridge.prior(m), strict=True)))


@items("resshift", "coef")
def test_resshift_tables(item):
    bridge, t = bridge_of(item), tensor(item["inputs"]["index"]) + 1
    agree(item, **dict(zip(("weight_y", "weight_x0", "std"), bridge.coefficients(t), strict=True)))
    agree(item, eta=bridge.eta[1:])
    assert bridge.end_std == pytest.approx(item["outputs"]["std"][-1], rel=1e-12)


# Drawing xt


@items("i2sb", "qsample")
def test_i2sb_samples(item):
    given = item["inputs"]
    agree(item, xt=bridge_of(item).sample(*(tensor(given[name]) for name in ("x0", "xT", "index", "noise"))))


@items("resshift", "qsample")
def test_resshift_samples(item):
    x0, y, noise = (tensor(item["inputs"][name]) for name in ("x0", "y", "noise"))
    agree(item, xt=bridge_of(item).sample(x0, y, torch.arange(1.0, len(x0) + 1).double(), noise))


# Posteriors and steps


@items("i2sb", "posterior")
def test_i2sb_posterior(item):
    later, earlier = tensor(item["inputs"]["n"]), tensor(item["inputs"]["m"])
    from_xt, from_x0, std = bridge_of(item).posterior(later, earlier)
    agree(item, w_xn=from_xt, w_x0=from_x0, std=torch.where(earlier == 0, 0, std))  # there, no noise into index 0


@items("resshift", "posterior")
def test_resshift_posterior(item):
    t = tensor(item["inputs"]["index"]) + 1
    from_xt, from_x0, std = bridge_of(item).posterior(t, t - 1)
    agree(item, w_x=from_xt, w_x0=from_x0, variance=std**2)


@items("resshift", "respaced")
def test_resshift_posterior_between_kept_indices(item):
    bridge, kept = bridge_of(item), tensor(item["outputs"]["kept"]) + 1
    from_xt, from_x0, std = bridge.posterior(kept, torch.cat([tensor([0]), kept[:-1]]))
    agree(item, eta=bridge.eta[kept.long()], w_x=from_xt, w_x0=from_x0, variance=std**2)


@items("i2sb", "postsample")
def test_i2sb_posterior_sample(item):
    xn, x0, noise = (tensor(item["inputs"][name]) for name in ("xn", "x0", "noise"))
    t, s = tensor(item["params"]["n"]), tensor(item["params"]["m"])
    at = Interval(bridge_of(item), lambda xt, t: x0, lambda: noise, xn, t, s, last=False)
    agree(item, xm=Markov()(xn, at))


@items("dbim", "update")
def test_dbim_weights(item):
    bridge = bridge_of(item)
    later, earlier = (own_times(bridge, item["inputs"][name]) for name in "st")
    weights = bridge.step_weights(later, earlier, item["params"]["eta"])
    agree(item, **dict(zip(("w_x", "w_xT", "w_x0", "std"), weights, strict=True)))


@items("bbdm", "step")
def test_bbdm_weights(item):
    bridge, eta = bridge_of(item), item["params"]["eta"]
    m, m_next = (bbdm_m(item, item["inputs"][name]) for name in ("t", "t_next"))
    from_xt, from_x0, std = bridge.posterior(m, m_next)
    agree(item, w_x=from_xt, w_x0=from_x0, w_y=torch.zeros_like(m), std=eta * std)
    full = bridge.step_weights(m, m_next, 1.0)
    agree(item, w_x=full.from_xt, w_x0=full.from_x0, w_y=full.from_xT, std=eta * full.std)


# Preconditioning


def constant_network(output):
    class Constant(nn.Module):
        def forward(self, xt, time, xT=None):
            return output

    return Constant()


def target(model: BridgeModel, x0, xt, t):
    """What the network must answer for x0_hat to be x0."""
    skip, out, _, _ = model.prediction.scalings(model.bridge, t)
    return (x0 - skip[:, None] * xt) / out[:, None]


@items("i2sb", "precond")
def test_i2sb_prediction(item):
    x0, xt, t = (tensor(item["inputs"][name]) for name in ("x0", "xt", "index"))
    model = BridgeModel(constant_network(tensor(item["inputs"]["net_out"])), bridge_of(item), prediction=I2SBNoise())
    time = model.prediction.scalings(model.bridge, t).time
    agree(item, x0_hat=model(xt, t), target=target(model, x0, xt, t), time_input=time)


@items("bbdm", "objective")
def test_bbdm_prediction(item):
    x0, y, noise = (tensor(item["inputs"][name]) for name in ("x0", "y", "noise"))
    m = bbdm_m(item, item["inputs"]["index"])
    model = BridgeModel(constant_network(tensor(item["inputs"]["net_out"])), bridge_of(item), prediction=BBDM())
    xt = model.bridge.sample(x0, y, m, noise)
    agree(item, xt=xt, target_grad=target(model, x0, xt, m), x0_from_grad=model(xt, m))


@items("ddbm", "precond")
def test_ddbm_preconditioning(item):
    check_preconditioning(item, DDBM(item["params"]["sigma_data"], item["params"]["cov_xy"]))


@items("dbim", "precond")
def test_dbim_preconditioning(item):
    p = item["params"]
    check_preconditioning(item, I2SBNoise() if p["schedule"] == "i2sb" else DDBM(p["sigma_data"], p["cov_xy"]))


def check_preconditioning(item, prediction):
    bridge = bridge_of(item)
    t = own_times(bridge, item["inputs"]["t"])
    skip, out, scale, time = prediction.scalings(bridge, t)
    weight = BridgeModel(nn.Identity(), bridge, prediction=prediction).output_weight(t)
    agree(item, c_skip=skip, c_out=out, c_in=scale, c_noise=time, weight=weight)


@items("ddbm", "trainloss")
def test_ddbm_training_loss(item):
    class Network(nn.Module):
        def forward(self, xt, time, xT):
            return torch.tanh(0.7 * xt + 0.2 * xT + 0.001 * time[:, None])

    x0, xT, t, noise = (tensor(item["inputs"][name]) for name in ("x0", "xT", "t", "noise"))
    prediction = DDBM(item["params"]["sigma_data"], item["params"]["cov_xy"])
    model = BridgeModel(Network(), bridge_of(item), conditional=True, prediction=prediction)
    xt = model.bridge.sample(x0, xT, t, noise)
    x0_hat = model(xt, t, xT)
    loss = model.output_weight(t) * (x0_hat - x0).square().mean(1)
    agree(item, xt=xt, denoised=x0_hat, loss=loss)


# Trajectories


@items("i2sb", "otode", "stoch")
def test_i2sb_trajectory(item):
    noise = item["inputs"].get("noise", ())
    step, n = Markov() if len(noise) else Markov(noise=0.0), item["params"]["N"]
    result, answers = walk(
        item, bridge_of(item), item["inputs"]["steps_descending"], step, noise=noise, clock=lambda t: t / n
    )
    agree(item, states=result.states[1:], x0_hat=answers)
    assert result.nfe == item["params"]["nfe"]


@items("dbim", "dbim", "stoch")
def test_dbim_trajectory(item):
    bridge, given = bridge_of(item), item["inputs"]
    noise = given.get("noise") or [given["booting_noise"]]
    times = [item["params"]["T"], *given["times"]]  # the first step, out of T, draws the booting noise
    grid = own_times(bridge, times)
    step = DBIM(item["params"].get("eta", 0.0), item["params"].get("order", 1))
    result, answers = walk(item, bridge, grid.tolist(), step, noise=noise, clock=clock_of(grid.tolist(), times))
    agree(item, states=result.states[1:], x=result.x0)
    if "x0_hat_last" in item["outputs"]:
        agree(item, x0_hat_last=answers[-1])
    assert result.nfe == item["outputs"]["nfe"]


@items("ddbm", "heun")
def test_ddbm_heun_trajectory(item):
    check_heun(item)


@items("dbim", "heun")
def test_dbim_heun_trajectory(item):
    check_heun(item)


def check_heun(item):
    result, _ = walk(item, bridge_of(item), item["inputs"]["times"], Heun())
    agree(item, states=result.states[1:], x=result.x0)
    assert result.nfe == item["outputs"]["nfe"]


@items("ddbm", "churn")
def test_ddbm_hybrid_trajectory(item):
    bridge, given, p = bridge_of(item), item["inputs"], item["params"]
    grid = karras_grid(bridge, p["N"], rho=p["rho"], first=bridge.T - 1e-4, last=p["t_min"])
    torch.testing.assert_close(grid, tensor(given["times"]), rtol=1e-12, atol=0)
    result, _ = walk(item, bridge, given["times"], Hybrid(p["churn"]), noise=given["noise"])
    agree(item, states_after_heun=result.states[1:], x=result.x0)
    assert result.nfe == item["outputs"]["nfe"]


@items("ddbm", "em")
def test_ddbm_churn(item):
    bridge, p = bridge_of(item), item["params"]
    xT, D0, noise = (tensor(item["inputs"][name]) for name in ("xT", "D0", "noise"))
    t, s = tensor(p["t_from"]), tensor(p["t_to"])
    at = Interval(bridge, lambda xt, t: D0, lambda: noise, xT, t, s, last=False)
    agree(item, after_churn=EulerMaruyama()(xT, at._replace(s=t + p["churn"] * (s - t))))
    agree(item, after_heun=Hybrid(p["churn"])(xT, at))


@items("ddbm", "drift")
def test_ddbm_drift(item):
    bridge = bridge_of(item)
    x, D, xT = (tensor(item["inputs"][name]) for name in ("x", "D", "xT"))
    t = tensor([item["params"]["t"]] * len(x))
    drift, g = bridge.reverse_sde(x, D, t)
    agree(item, ode_drift=bridge.velocity(x, D, xT, t), sde_drift=drift, g2=g[0] ** 2)


@items("bbdm", "traj")
def test_bbdm_trajectory(item):
    steps, n = item["inputs"]["steps"], item["params"]["num_timesteps"]
    grid = [*bbdm_m(item, steps).tolist(), 0.0]  # the last step returns x0_hat
    clock = clock_of(grid[:-1], [index / n for index in steps])
    step = Markov(noise=item["params"]["eta"])
    result, answers = walk(item, bridge_of(item), grid, step, xT="y", noise=item["inputs"]["noise"], clock=clock)
    agree(item, states=result.states[1:], x0_hat=answers)


@items("resshift", "traj")
def test_resshift_trajectory(item):
    steps = item["params"]["steps"]
    grid = [index + 1 for index in item["inputs"]["index_descending"]] + [0]
    result, answers = walk(
        item,
        bridge_of(item),
        grid,
        Markov(),
        xT="y",
        noise=item["inputs"]["noise"],
        clock=lambda t: (t - 1) / steps,
    )
    agree(item, states=result.states, x0_hat=answers)
    assert result.nfe == steps


# Distillation losses


@items("sid", "sid_alpha0.5")
def test_sid_at_one_half_is_half_the_loss(item):
    """A bridge whose end is far away is a diffusion model: VE with a -> 0, b -> 1, c -> sigma."""

    class Prediction:
        def scalings(self, bridge, t):
            return Scalings(torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t), t)

    class Network(nn.Module):
        def __init__(self, j, m, s):
            super().__init__()
            self.j, self.m, self.s = j, m, s

        def forward(self, xt, time):
            variance = time[:, None, None, None] ** 2
            return (self.s**2 * xt + variance * self.m) / (self.s**2 + variance) + 0.05 * self.j * torch.tanh(xt)

    bridge = VE(T=1e12)
    teacher, fake = (
        BridgeModel(Network(j, **item["params"][name]), bridge, prediction=Prediction())
        for j, name in ((1, "teacher"), (2, "fake"))
    )
    images = tensor(item["inputs"]["images"]).requires_grad_()
    sigma, scale, noise = (
        tensor(item[place][name]) for place, name in (("outputs", "sigma"), ("outputs", "weight"), ("inputs", "noise"))
    )
    xT = torch.zeros_like(images)
    losses = ibmd_loss(teacher, fake, images, xT, sigma, weight=lambda t: scale.reciprocal(), noise=noise)
    total = losses.loss * images.numel() / 2
    total.backward()
    agree(item, loss_sum=total.detach(), grad_images=images.grad)

    with torch.no_grad():
        xt = bridge.sample(images, xT, sigma, noise)
        real, false = teacher(xt, sigma), fake(xt, sigma)
        per_element = (real - false) * ((real - images) - 0.5 * (real - false)) / scale[:, None, None, None]
    agree(item, loss=per_element, weight=(real - images).abs().mean((1, 2, 3)).detach())


@items("realuid", "dist")
def test_realuid_is_the_loss_on_a_flow(item):
    """RealUID's time runs the other way: tau = 1 - t.  Its velocity u gives x0_hat = xt + tau u(1 - tau, xt)."""

    class Prediction:
        def scalings(self, bridge, t):
            return Scalings(torch.ones_like(t), t, torch.ones_like(t), 1 - t)

    class Network(nn.Module):
        def __init__(self, A, b, c, k):
            super().__init__()
            self.A, self.b, self.c, self.k = tensor(A), tensor(b), tensor(c), k

        def forward(self, xt, time):
            return xt @ self.A.T + time[:, None] * self.b + self.c + self.k * torch.tanh(xt)

    bridge, given = Flow(), item["inputs"]
    teacher, fake = (BridgeModel(Network(**given[name]), bridge, prediction=Prediction()) for name in ("u_star", "u"))
    x0, xT, tau = tensor(given["x1_gen"]).requires_grad_(), tensor(given["x0_noise"]), 1 - tensor(given["t"])
    losses = ibmd_loss(teacher, fake, x0, xT, tau, weight=lambda t: t**-2)
    total = losses.loss * x0.shape[1]
    total.backward()
    agree(item, generator_loss=total.detach(), grad_x1_gen=x0.grad)
    with torch.no_grad():
        xt = bridge.sample(x0, xT, tau)
        agree(item, xt=xt, D_teacher=teacher(xt, tau), D_fake=fake(xt, tau))


def test_every_recorded_item_is_compared():
    kept = {f"{path.stem}/{name}" for path in FOLDER.glob("*.json") for name in read(path.stem)}
    assert kept == USED
