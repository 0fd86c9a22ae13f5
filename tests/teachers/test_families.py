"""What is published: settings against their sources, walks against reference numbers, an update of distillation."""

from __future__ import annotations

import math

import pytest
import torch
from test_reference import Denoiser, agree, bbdm_m, bridge_of, clock_of, own_times, read, tensor
from torch import nn

from ibmd_lite.bridges import DBIMI2SB, I2SB, VE, VP, Brownian, I2SBFlow
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, end_of_chain, refilled_chain
from ibmd_lite.model import DDBM, BridgeModel, I2SBNoise, Source
from ibmd_lite.sampling import DBIM, Heun, Hybrid, Markov, sample
from ibmd_lite.teachers import ADM, PUBLISHED, BBDMIndex, build, load_teacher, published
from ibmd_lite.training import recompute

SMALL = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head": 32}


def small_teacher(name, folder) -> BridgeModel:
    """Made as users make theirs: from a file, through ``load_teacher``."""
    network = build(name, **SMALL)
    generator = torch.Generator().manual_seed(0)
    for value in network.parameters():
        value.data = 0.05 * torch.randn(value.shape, generator=generator)
    torch.save(network.state_dict(), folder / "weights.pt")
    return load_teacher(name, folder / "weights.pt", network=build(name, **SMALL))


def test_settings_of_the_training_scripts():
    quiet = ["sr4x-bicubic", "sr4x-pool", "jpeg-5", "jpeg-10"]
    flows = ["blur-uni", "blur-gauss", "inpaint-center", "inpaint-freeform1020", "inpaint-freeform2030"]
    for task in quiet:
        assert PUBLISHED[f"i2sb-{task}"].bridge == I2SB(0.3, 1000)
    for task in flows:
        assert PUBLISHED[f"i2sb-{task}"].bridge == I2SBFlow(1.0, 1000)
    assert PUBLISHED["i2sb-conditional"].conditional
    assert not any(PUBLISHED[f"i2sb-{task}"].conditional for task in quiet + flows)
    assert PUBLISHED["dbim-inpaint-center"].bridge == DBIMI2SB(1.0, 1000)
    assert PUBLISHED["ddbm-edges2handbags"].bridge == PUBLISHED["ddbm-diode"].bridge == VP(2.0, 0.1, 1.0)
    assert PUBLISHED["ddbm-edges2handbags-ve"].bridge == VE(80.0)
    assert PUBLISHED["ddbm-diode-ve"].bridge == VE(20.0)
    assert PUBLISHED["bbdm"].bridge == Brownian(2.0)
    for name, own in PUBLISHED.items():
        kind = {"i2sb": I2SBNoise(), "dbim": I2SBNoise(), "ddbm": DDBM(0.5, 0.0), "bbdm": BBDMIndex()}
        assert own.prediction == kind[name.split("-")[0]]
        assert own.network.order == ("new" if name.startswith("ddbm") else "legacy")
        assert own.network.labels == (1000 if name.startswith("dbim") else 0)
        assert own.image_size % own.network.downsampling == 0
        assert (own.hole is None) == ("inpaint" not in name)
        assert (own.source is None) == all(kind not in name for kind in ("sr4x", "jpeg", "blur"))
        assert (own.file is None) == ("settings" in own.expect)


def test_loading_freezes_and_an_unknown_name_is_told(tmp_path):
    teacher = small_teacher("ddbm-diode", tmp_path)
    assert not teacher.training
    assert not any(value.requires_grad for value in teacher.parameters())
    assert teacher.form == (VP(), DDBM(), True)
    with pytest.raises(ValueError, match="'i2sb'; known are i2sb-sr4x-bicubic"):
        load_teacher("i2sb", tmp_path / "there-is-none")
    with pytest.raises(ValueError, match="known are"):
        published("")
    with pytest.raises(ValueError, match="load_resshift: resshift-real"):
        load_teacher("resshift-real", tmp_path / "there-is-none")


def test_bbdm_tells_the_index():
    """m = 0.001 + 0.998 i/999 (BrownianBridgeModel.register_schedule); sampling starts from xT at index 999."""
    index = torch.tensor([0.0, 1.0, 500.0, 999.0], dtype=torch.float64)
    skip, out, scale, time = BBDMIndex().scalings(Brownian(2.0), 0.001 + 0.998 * index / 999)
    torch.testing.assert_close(time, index, rtol=0, atol=1e-9)
    assert skip.tolist() == scale.tolist() == (-out).tolist() == [1.0] * 4
    assert BBDMIndex().scalings(Brownian(2.0, T=4.0), torch.tensor([0.0, 4.0])).time.tolist() == [0, 999]


def test_bbdm_is_loaded_with_its_own_prediction(tmp_path):
    teacher = small_teacher("bbdm", tmp_path)
    teacher.save(tmp_path / "bbdm.safetensors")
    with pytest.raises(ValueError, match="prediction of your own"):
        BridgeModel.load(tmp_path / "bbdm.safetensors", build("bbdm", **SMALL))
    again = BridgeModel.load(tmp_path / "bbdm.safetensors", build("bbdm", **SMALL), prediction=BBDMIndex())
    assert again.form == teacher.form


# I2SB without noise


def test_flow_of_i2sb():
    flow, noisy = I2SBFlow(), I2SB(1.0)
    t, s = flow.times[[999, 700, 3]], flow.times[[500, 699, 0]]
    for found, wanted in zip(flow.coefficients(t)[:2], noisy.coefficients(t)[:2], strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert flow.coefficients(flow.times)[2].abs().max() == 0
    assert noisy.coefficients(t)[2].min() > 0  # tables are kept by bridge, not by its numbers alone
    from_xt, from_x0, std = flow.posterior(t, s)
    torch.testing.assert_close(torch.stack([from_xt, from_x0]), torch.stack(noisy.posterior(t, s)[:2]), rtol=0, atol=0)
    assert std.tolist() == [0.0] * 3
    torch.testing.assert_close(flow.prior(t)[1], noisy.prior(t)[1], rtol=0, atol=0)
    x0, xT = torch.randn(2, 4), torch.randn(2, 4)
    index = torch.tensor([0.0, 999.0])
    torch.testing.assert_close(flow.sample(x0, xT, index), torch.stack([x0[0], xT[1]]), rtol=2e-3, atol=2e-3)
    drawn = flow.draw_times(4000, torch.Generator().manual_seed(0))
    assert (drawn.min(), drawn.max()) == (0, 999)
    assert abs(drawn.mean() - 499.5) < 5 * 288.7 / 4000**0.5


def test_a_walk_of_the_deterministic_family_stays_on_the_flow():
    """With the true x0, every step between two indices ends on a xT + b x0, and it goes on from where it is."""
    flow, x0, xT = I2SBFlow(), torch.randn(1, 3).double(), torch.randn(1, 3).double()
    t, s = flow.times[700], flow.times[200]
    weights = flow.step_weights(t, s, 0.0)
    xt = flow.sample(x0, xT, t[None])
    found = weights.from_xt * xt + weights.from_xT * xT + weights.from_x0 * x0
    torch.testing.assert_close(found, flow.sample(x0, xT, s[None]), rtol=1e-12, atol=1e-12)
    assert weights.std == 0
    limit = I2SB(1.0).coefficients(s)[2] / I2SB(1.0).coefficients(t)[2]  # c_s/c_t, as the noise goes to zero
    torch.testing.assert_close(weights.from_xt, limit, rtol=1e-12, atol=0)


# Walks: the network answers what would make x0_hat the reference's denoiser, by each project's own formulas


class Driven(nn.Module):
    """Answers F(input, time) of a project such that its own formula for x0_hat gives the reference's denoiser."""

    def __init__(self, item, xT, clock):
        super().__init__()
        self.item, self.xT, self.bridge = item, xT, bridge_of(item)
        self.denoiser, self.calls = Denoiser(item, self.bridge, clock), 0

    def forward(self, inputs, time, xT=None, label=None):
        assert xT is None or torch.equal(xT, self.xT)
        self.calls += 1
        t = self.time(time)
        scale = self.scale(t)
        x0_hat = self.denoiser(inputs / scale, 1000 * t / self.bridge.T, self.xT)
        return self.answer(inputs / scale, x0_hat, t)

    def scale(self, t):
        return 1.0


class DrivenI2SB(Driven):
    """Time 1000 (1e-4 + n/999 (1 - 1e-4)); label (xt - x0)/std_fwd, its square the sum of the betas up to n."""

    def time(self, time):
        return ((time / 1000 - 1e-4) / (1 - 1e-4) * 999).round()

    def answer(self, x, x0_hat, t):
        top = math.sqrt(self.item["params"]["beta_max"] / 1000)
        root = [0.01 + (top - 0.01) * k / 999 for k in range(500)]
        return (x - x0_hat) / math.sqrt(sum(r * r for r in (root + root[::-1])[: int(t[0]) + 1]))


class DrivenDDBM(Driven):
    """Time 250 log t; c_in, c_skip and c_out of sigma_data = 0.5 and cov = 0."""

    def time(self, time):
        return (time / 250).exp()

    def scale(self, t):
        a, b, c = (one[0] for one in self.bridge.coefficients(t))
        return (0.25 * a**2 + 0.25 * b**2 + c**2) ** -0.5

    def answer(self, x, x0_hat, t):
        a, b, c = (one[0] for one in self.bridge.coefficients(t))
        inside = self.scale(t)
        return (x0_hat - 0.25 * b * inside**2 * x) / ((0.0625 * a**2 + 0.25 * c**2) ** 0.5 * inside)


class DrivenBBDM(Driven):
    """Time i, m = 0.001 + 0.998 i/999; objective 'grad', xt - x0."""

    def time(self, time):
        return 0.001 + 0.998 * time / 999

    def answer(self, x, x0_hat, t):
        return x - x0_hat


WALKS = {
    "i2sb-sr4x-pool": ("i2sb", "otode_N1000_bmax0.3_affine_nfe10", Markov(noise=0.0)),
    "i2sb-jpeg-5": ("i2sb", "stoch_N1000_bmax0.3_gaussian_nfe5", Markov()),
    "i2sb-conditional": ("i2sb", "otode_N1000_bmax0.3_gaussian_nfe10", Markov(noise=0.0)),
    "i2sb-blur-uni": ("i2sb", "otode_N1000_bmax1.0_affine_nfe10", Markov()),
    "i2sb-inpaint-center": ("i2sb", "otode_N1000_bmax1.0_gaussian_nfe5", Markov()),
    "ddbm-edges2handbags": ("dbim", "dbim_vp_affine_nfe10_order1", DBIM(0.0)),
    "ddbm-diode": ("ddbm", "churn_vp_gaussian_N5", Hybrid(0.33)),
    "ddbm-edges2handbags-ve": ("ddbm", "heun_ve_gaussian_N5", Heun()),
    "dbim-inpaint-center": ("dbim", "dbim_i2sb_gaussian_nfe10_order3", DBIM(0.0, 3)),
    "bbdm": ("bbdm", "traj_linear_T1000_var1.0_S10_eta0.5", Markov(noise=0.5)),
}


@pytest.mark.parametrize("name", WALKS)
def test_reference_walks(name, tmp_path):
    file, which, step = WALKS[name]
    item = read(file)[which]
    given, bridge = item["inputs"], bridge_of(item)
    kinds = {"i2sb": DrivenI2SB, "dbim": DrivenI2SB, "ddbm": DrivenDDBM, "bbdm": DrivenBBDM}
    if file == "i2sb":
        grid = theirs = given["steps_descending"]
        clock = lambda t: t / 1000  # noqa: E731
    elif file == "bbdm":
        grid, theirs = [*bbdm_m(item, given["steps"]).tolist(), 0.0], given["steps"]
        clock = clock_of(grid[:-1], [index / 1000 for index in theirs])
    else:
        theirs = [item["params"]["T"], *given["times"]] if file == "dbim" else given["times"]
        grid = own_times(bridge, theirs).tolist()
        clock = clock_of(grid, theirs)
    xT = tensor(given["y" if file == "bbdm" else "xT"])
    network = kinds[name.split("-")[0]](item, xT, clock)
    form = small_teacher(name, tmp_path).form
    model = BridgeModel(network, **form._asdict())
    noise = given.get("noise") or ([given["booting_noise"]] if "booting_noise" in given else [])
    result = sample(model, xT, tensor(grid), step, noise=tensor(noise), keep_states=True)
    states = {"states_after_heun" if isinstance(step, Hybrid) else "states": result.states[1:]}
    agree(item, **states)
    assert result.nfe == network.calls


# Distillation


def source_of(name, generator) -> Source:
    own = PUBLISHED[name]
    x0 = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    label = torch.tensor([3, 997]) if own.network.labels else None
    if own.hole is None:
        return Source(x0)
    noise = torch.randn(x0.shape, generator=generator) if "noise" in own.hole else torch.zeros_like(x0)
    return Source(torch.where(mask > 0.5, noise, x0), mask=mask, label=label)


# Presets that differ in size or task alone are the same at a small size
KINDS = {(own.bridge, own.conditional, own.hole, own.network.order): name for name, own in PUBLISHED.items()}


@pytest.mark.parametrize("name", KINDS.values())
def test_one_update_of_distillation(name, tmp_path):
    teacher = small_teacher(name, tmp_path)
    generator = torch.Generator().manual_seed(1)
    source = source_of(name, generator)
    given = {} if source.label is None else {"label": source.label}
    before = [value.clone() for value in teacher.parameters()]
    hole = PUBLISHED[name].hole or ""
    noise_channels = 0 if "noise" in hole else 3  # noise in xT is enough
    student = Student.of(teacher, input_layer=ADM.input_layer, steps=2, noise_channels=noise_channels)
    assert (student.channels, student.noise_channels) == (3, noise_channels)
    with torch.no_grad():  # a student starts as its teacher
        t = torch.full((2,), teacher.bridge.T)
        seen = (source.xT,) if teacher.conditional else ()
        answer = source.compose(teacher(source.xT, t, *seen, **given))
        torch.testing.assert_close(student.walk(source, 1, generator), answer)
    rollout = end_of_chain if noise_channels else refilled_chain
    settings = DistillationSettings(fake_updates=1, weight=teacher.output_weight, rollout=rollout)
    run = Distillation(teacher, student, settings=settings, device="cpu")
    record = next(run.updates([source] * 2, 1))
    assert math.isfinite(record.loss)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    first = student.model.network.get_submodule(ADM.input_layer).weight
    assert first.shape[1] == (6 if teacher.conditional else 3) + noise_channels
    if noise_channels:
        assert first[:, 3:6].abs().max() > 0  # the noise inputs, zero at the start, have learned something
    restored = run.student(source)
    assert bool(restored.isfinite().all())
    if source.mask is not None:
        assert torch.equal(restored * (1 - source.mask), source.xT * (1 - source.mask))


def test_a_recomputed_teacher_is_distilled_alike(tmp_path):
    """Teacher and fake are frozen in the generator's update, and so they must be when layers are computed again."""
    losses = []
    for saving in (False, True):
        teacher = small_teacher("ddbm-edges2handbags", tmp_path)
        if saving:
            recompute(teacher.network, ADM.blocks)
        torch.manual_seed(0)
        student = Student.of(teacher, input_layer=ADM.input_layer)
        settings = DistillationSettings(fake_updates=1, weight=teacher.output_weight)
        run = Distillation(teacher, student, settings=settings, device="cpu")
        source = source_of("ddbm-edges2handbags", torch.Generator().manual_seed(1))
        losses.append([record.loss for record in run.updates([source] * 6, 3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(set(losses[0])) == 3
