"""A network on a bridge: every prediction type gives x0 back, and nothing reaches a network that should not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ibmd_lite.bridges import DBIMI2SB, I2SB, VE, VP, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.model import BBDM, DDBM, X0, BridgeModel, I2SBNoise, Output, Retimed, Source
from ibmd_lite.networks import MLP, UNet
from ibmd_lite.student import add_noise_input, find_input
from ibmd_lite.training.files import save_weights

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")

WITH_PRIOR = [Brownian(eps=0.7), VP(), VE(), ContinuousI2SB(), I2SB(), DBIMI2SB()]
WITHOUT_PRIOR = [Flow(), ResShift()]
PREDICTIONS = [X0(), I2SBNoise(), BBDM(), DDBM(), DDBM(0.7, cov=0.2)]
PAIRS = [(bridge, p) for bridge in WITH_PRIOR + WITHOUT_PRIOR for p in PREDICTIONS]
PAIRS = [(bridge, p) for bridge, p in PAIRS if bridge in WITH_PRIOR or not isinstance(p, I2SBNoise)]


class Answer(nn.Module):
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer, self.seen, self.conditions = answer, None, None

    def forward(self, xt, time, *rest, **conditions):
        self.seen, self.conditions = (xt, time, *rest), conditions
        return xt if self.answer is None else self.answer


def times(bridge, *fractions):
    t = bridge.T * torch.tensor(fractions, dtype=torch.float64)
    return t if bridge.times is None else t.round()


# Prediction types


@given(st.sampled_from(PAIRS), st.floats(0.01, 1), st.integers(0, 100))
def test_a_prediction_inverts_its_training_target(pair, fraction, seed):
    bridge, prediction = pair
    x0, xT, noise = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    t = times(bridge, fraction, 0.5)
    xt = bridge.sample(x0, xT, t, noise)
    skip, out, _, _ = prediction.scalings(bridge, t)
    target = (x0 - skip[:, None] * xt) / out[:, None]
    model = BridgeModel(Answer(target), bridge, prediction=prediction)
    torch.testing.assert_close(model(xt, t), x0, rtol=1e-10, atol=1e-10 * xt.abs().max().item())
    torch.testing.assert_close(model.output_weight(t), 1 / out**2)


def test_targets_are_those_of_the_papers():
    """X0: x0.  I2SB: (xt - x0)/sigma.  BBDM: xt - x0 = m (xT - x0) + sqrt(delta) noise."""
    bridge = Brownian(eps=2.0)
    x0, xT, noise = torch.randn(3, 4, 3, dtype=torch.float64)
    t = times(bridge, 0.1, 0.4, 0.8, 1.0)
    xt, m = bridge.sample(x0, xT, t, noise), t[:, None]
    for prediction, target in [
        (X0(), x0),
        (I2SBNoise(), (xt - x0) / (2 * m).sqrt()),
        (BBDM(), m * (xT - x0) + (2 * m * (1 - m)).sqrt() * noise),
    ]:
        torch.testing.assert_close(BridgeModel(Answer(target), bridge, prediction=prediction)(xt, t), x0)


@pytest.mark.parametrize("bridge", WITH_PRIOR + WITHOUT_PRIOR, ids=str)
def test_what_a_network_is_told_of_the_time(bridge):
    t = times(bridge, 0.0, 0.5, 1.0)
    for prediction in (X0(), BBDM()):
        torch.testing.assert_close(prediction.scalings(bridge, t).time, 1000 * t / bridge.T)
    time = DDBM().scalings(bridge, t).time
    torch.testing.assert_close(time[1:], 250 * t[1:].log())
    assert bool(time.isfinite().all())
    if bridge in WITH_PRIOR:
        time = I2SBNoise().scalings(bridge, t).time
        assert (time[0].item(), time[-1].item()) == pytest.approx((0.1, 1000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bridge", WITH_PRIOR + WITHOUT_PRIOR, ids=str)
def test_ddbm_preconditioning_is_finite_at_both_ends(bridge, dtype):
    t = times(bridge, 0.0, 1.0).to(dtype)
    skip, out, scale, time = DDBM(sigma_data=0.5).scalings(bridge, t)
    assert all(bool(x.isfinite().all()) for x in (skip, out, scale, time))
    if bridge.coefficients(t)[2].tolist() == [0, 0]:  # pinned: x0 itself at 0, nothing known of x0 at T
        assert skip.tolist() == [1, 0]
        assert out.tolist() == pytest.approx([0, 0.5])
        assert scale.tolist() == pytest.approx([2, 2])
        x = torch.randn(2, 3, dtype=dtype)
        model = BridgeModel(Answer(torch.ones_like(x)), bridge, prediction=DDBM())
        torch.testing.assert_close(model(x, t), torch.stack([x[0], torch.full_like(x[1], 0.5)]))


@given(st.sampled_from([b for b in WITH_PRIOR if b.times is None]), st.floats(0.01, 1), st.floats(-0.9, 0.9))
def test_ddbm_preconditioning_has_unit_variance(bridge, fraction, correlation):
    """Var(scale xt) = 1, and skip is the best linear guess of x0 from xt, out the std of what it leaves."""
    sd, t = 0.5, times(bridge, fraction)
    skip, out, scale, _ = DDBM(sd, cov=correlation * sd**2).scalings(bridge, t)
    a, b, c = bridge.coefficients(t)
    joint = sd**2 * torch.tensor([[1, correlation], [correlation, 1]], dtype=torch.float64)  # of (x0, xT)
    mix = torch.cat([b, a])
    variance, shared = mix @ joint @ mix + c**2, joint[0] @ mix
    torch.testing.assert_close(scale**2 * variance, torch.ones(1).double())
    torch.testing.assert_close(skip, shared / variance)
    torch.testing.assert_close(out**2, sd**2 - shared**2 / variance, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("bridge", WITHOUT_PRIOR, ids=str)
def test_a_prediction_the_bridge_cannot_serve_is_refused_at_once(bridge):
    with pytest.raises(ValueError, match=r"has no prior q\(xt\|x0\), which I2SBNoise divides by; use X0\(\) or BBDM"):
        BridgeModel(MLP(2), bridge, prediction=I2SBNoise())


@pytest.mark.parametrize("prediction", ["x0", "eps", X0, 3])
def test_unknown_predictions_are_refused(prediction):
    with pytest.raises(TypeError, match=r"unknown prediction type .*: use X0\(\), I2SBNoise\(\), BBDM\(\) or DDBM\(\)"):
        BridgeModel(MLP(2), Brownian(), prediction=prediction)


@pytest.mark.parametrize("bridge", ["brownian", 1.0, Brownian, None])
def test_what_is_no_bridge_is_refused(bridge):
    with pytest.raises(TypeError, match=r"bridge must be a Bridge such as Brownian\(eps=1.0\), got"):
        BridgeModel(MLP(2), bridge)


def test_x0_is_the_default():
    assert BridgeModel(MLP(2), Brownian()).prediction == X0()


# Calling a model


def test_a_network_sees_what_it_should_and_no_more():
    xt, xT, t = torch.randn(3, 2), torch.randn(3, 2), torch.rand(3)
    network = Answer()
    BridgeModel(network, Brownian())(xt, t)
    assert len(network.seen) == 2
    assert network.conditions == {}
    BridgeModel(network, Brownian(), conditional=True)(xt, t, xT)
    assert network.seen[2] is xT
    label, task = torch.zeros(3), torch.ones(3)
    BridgeModel(network, Brownian())(xt, t, label=label, task=task)
    assert network.conditions == {"label": label, "task": task}


def test_noise_joins_the_scaled_state_on_the_channels():
    xt, z, t, network = torch.randn(3, 2), torch.randn(3, 1), torch.full((3,), 0.5), Answer(torch.zeros(3, 2))
    BridgeModel(network, Brownian(), prediction=DDBM())(xt, t, z=z)
    scale = DDBM().scalings(Brownian(), t).scale
    torch.testing.assert_close(network.seen[0], torch.cat([scale[:, None] * xt, z], 1))


def test_a_model_refuses_what_does_not_belong():
    x, t = torch.zeros(3, 2), torch.rand(3)
    plain, paired = BridgeModel(MLP(2), Brownian()), BridgeModel(MLP(2, conditional=True), Brownian(), conditional=True)
    with pytest.raises(ValueError, match=r"xT was given to an unconditional model: call model\(xt, t\)"):
        plain(x, t, x)
    with pytest.raises(ValueError, match=r"a conditional model needs xT: call model\(xt, t, xT\)"):
        paired(x, t)
    with pytest.raises(ValueError, match=r"xT must have the shape of xt, \(3, 2\), got \(1, 2\)"):
        paired(x, t, x[:1])
    for wrong in (t[:, None], t[:1], torch.tensor(0.5), torch.rand(2)):
        with pytest.raises(ValueError, match=r"t must have shape \(3,\), one time per sample, got \("):
            plain(x, wrong)
    with pytest.raises(ValueError, match=r"t must lie in \[0, T\]"):
        plain(x, t + 1)
    with pytest.raises(TypeError, match="float32 or float64"):
        plain(x, t.half())


@pytest.mark.parametrize("shape", [(3, 4), (1, 2), (3, 1), (3, 2, 1)])
def test_a_network_that_returns_another_shape_is_refused(shape):
    model = BridgeModel(Answer(torch.zeros(shape)), Brownian())
    with pytest.raises(ValueError, match=r"must return the shape of xt, \(3, 2\); got \("):
        model(torch.zeros(3, 2), torch.rand(3))


def test_given_is_what_a_model_may_see():
    xT = torch.randn(3, 2)
    source = Source(xT, label=torch.zeros(3), task=1)
    plain = BridgeModel(Answer(), Brownian())
    assert plain.given(Source(xT)) == {}
    assert set(plain.given(source)) == {"label", "task"}
    paired = BridgeModel(Answer(), Brownian(), conditional=True).given(source)
    assert paired["xT"] is xT
    assert paired["task"].tolist() == [1, 1, 1]


def test_on_shares_the_weights_and_takes_the_rest():
    network = MLP(2, conditional=True)
    other = BridgeModel(Answer(), VP(), conditional=True, prediction=DDBM())
    moved = BridgeModel(network, Brownian()).on(other)
    assert moved.network is network
    assert (moved.bridge, moved.conditional, moved.prediction) == (VP(), True, DDBM())


# Sources


@pytest.mark.parametrize(
    "prediction", [DDBM(0.7, 0.1), Output("x0 - xt"), Retimed(DDBM(0.7), "t/T"), Retimed(Output("x0 - xt"), "1 - t/T")]
)
def test_a_model_is_saved_with_all_that_its_prediction_holds(tmp_path, prediction):
    torch.manual_seed(0)
    model = BridgeModel(MLP(2, 16, 1), VP(beta_d=1.7), prediction=prediction).eval()
    nn.init.normal_(model.network.output_layer.weight)
    model.save(tmp_path / "m.safetensors")
    again = BridgeModel.load(tmp_path / "m.safetensors", MLP(2, 16, 1))
    assert again.form == model.form
    xt, t = torch.randn(3, 2), torch.tensor([0.1, 0.5, 1.0])
    assert torch.equal(again(xt, t), model(xt, t))


def test_a_file_that_does_not_say_what_a_prediction_holds_asks_for_it(tmp_path):
    """As they were written once: {"name": "Retimed", "prediction": {}}."""
    path, model = tmp_path / "m.safetensors", BridgeModel(MLP(2, 16, 1), VP(), prediction=Retimed(X0(), "t/T"))
    about = model.about | {"prediction": {"name": "Retimed", "prediction": {}, "time": "t/T"}}
    save_weights(path, model, about)
    with pytest.raises(ValueError, match=r"names nothing as its prediction.*prediction=\.\.\."):
        BridgeModel.load(path, MLP(2, 16, 1))
    assert BridgeModel.load(path, MLP(2, 16, 1), prediction=model.prediction).form == model.form


def test_a_bare_tensor_is_a_source():
    x = torch.zeros(2, 3)
    assert Source.of(x).xT is x
    assert Source.of(x).conditions == {}
    source = Source(x, mask=torch.ones(2, 1))
    assert Source.of(source) is source


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(wrong):
    x = torch.zeros(2, 3, 4, 4)
    x[1, 2, 3, 3] = wrong
    with pytest.raises(ValueError, match="xT holds NaN or infinite values; clean the batch"):
        Source.of(x)


@pytest.mark.parametrize(
    ("xT", "kind", "message"),
    [
        (
            torch.zeros(2, 3, dtype=torch.uint8),
            ValueError,
            r"floating-point batch \(B, \*dims\), got torch.uint8 of shape",
        ),
        (torch.zeros(2, 3, dtype=torch.int64), ValueError, "got torch.int64"),
        (torch.zeros(3), ValueError, r"of shape \(3,\)"),
        (torch.tensor(1.0), ValueError, r"of shape \(\)"),
        ([[0.0]], TypeError, "must be a tensor xT or a Source, got list"),
        (None, TypeError, "got NoneType"),
        ((torch.zeros(2, 3), torch.zeros(2, 3)), TypeError, "got tuple"),
    ],
    ids=["bytes", "integers", "vector", "number", "list", "none", "pair"],
)
def test_what_is_no_batch_is_refused(xT, kind, message):
    with pytest.raises(kind, match=message):
        Source.of(xT)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 4, 4), (1, 1, 4, 4), (2, 1, 4, 5)])
def test_masks_of_another_shape_are_refused(shape):
    xT = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"mask must be \(2, 1, 4, 4\) for xT \(2, 3, 4, 4\), got \("):
        Source.of(Source(xT, mask=torch.ones(shape)))
    assert Source.of(Source(xT, mask=torch.ones(2, 1, 4, 4)))


def test_composition_keeps_what_is_known():
    xT, x0 = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = torch.zeros(2, 1, 4, 4)
    mask[..., :2] = 1
    composed = Source(xT, mask=mask).compose(x0)
    assert torch.equal(composed[..., :2], x0[..., :2])
    assert torch.equal(composed[..., 2:], xT[..., 2:])
    assert Source(xT).compose(x0) is x0


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 1, dtype=torch.bool), torch.full((2, 1), 0.5), torch.full((2, 1), -1.0)]
)
def test_masks_of_other_values_are_refused(mask):
    with pytest.raises(ValueError, match=r"1 in the hole and 0 elsewhere, got .*; use \(mask > 0.5\).to\(xT.dtype\)"):
        Source.of(Source(torch.zeros(2, 3), mask=mask))


def test_a_source_moves_with_all_it_holds():
    source = Source(torch.zeros(2, 3), mask=torch.ones(2, 1), label=torch.zeros(2), task=4).to("meta")
    assert {x.device.type for x in (source.xT, source.mask, source.label)} == {"meta"}
    assert source.task == 4


# Noise inputs


def spread(network: nn.Module) -> nn.Module:
    """Give every weight a value: a fresh network answers 0 whatever it is asked."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter[0].numel()))
    return network.double()


NETWORKS = [
    pytest.param(kind, arguments, shape, conditional, id=f"{kind.__name__}-{'xT' if conditional else 'alone'}-{name}")
    for kind, arguments, shape, name in (
        (MLP, {"dimension": 2, "width": 16}, (2,), "plane"),
        (UNet, {"channels": 3, "width": 8, "multipliers": (1, 2)}, (3, 4, 4), "pixels"),
        (UNet, {"channels": 1, "width": 8, "multipliers": (1,), "patch": 2}, (1, 4, 4), "patches"),
        (UNet, {"channels": 3, "width": 16, "multipliers": (1, 2), "attention": True}, (3, 4, 4), "attention"),
    )
    for conditional in (False, True)
]


@pytest.mark.parametrize(("kind", "arguments", "shape", "conditional"), NETWORKS)
@pytest.mark.parametrize("noise_channels", [1, 3])
def test_noise_inputs_change_nothing_until_they_are_trained(kind, arguments, shape, conditional, noise_channels):
    network = spread(kind(**arguments, conditional=conditional))
    wide = add_noise_input(network, shape[0], noise_channels)
    x, xT, time = torch.randn(3, *shape).double(), torch.randn(3, *shape).double(), torch.rand(3) * 1000
    rest = (xT,) if conditional else ()
    expected = network(x, time, *rest)
    assert expected.abs().max() > 0.01
    z = torch.randn(3, noise_channels, *shape[1:]).double()
    with_noise = wide(torch.cat([x, z], 1), time, *rest)
    # Only the order of the sums may differ: the weights of z are exact zeros, whatever z is.
    torch.testing.assert_close(with_noise, expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(with_noise, wide(torch.cat([x, -7 * z], 1), time, *rest))
    with_noise.square().sum().backward()
    of_noise = find_input(wide, "input_layer").weight
    assert bool((of_noise[:, shape[0] : shape[0] + noise_channels] == 0).all())
    assert bool((of_noise.grad[:, shape[0] : shape[0] + noise_channels] != 0).any()), "z can be learned"


def test_noise_inputs_leave_the_original_alone():
    network = spread(MLP(2, width=16))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    wide = add_noise_input(network, 2, 2)
    assert wide.input_layer.in_features == 4
    with torch.no_grad():
        for parameter in wide.parameters():
            parameter.add_(1)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    same = add_noise_input(network, 2, 0)
    assert same is not network
    assert same.input_layer.in_features == 2


def test_layers_that_noise_cannot_join_are_refused():
    with pytest.raises(ValueError, match=r"no layer 'first'; name its input layer, one of \['input_layer'"):
        add_noise_input(MLP(2), 2, 2, "first")
    with pytest.raises(ValueError, match="noise can join a Linear or an ungrouped Conv layer only"):
        add_noise_input(MLP(2), 2, 2, "time_layer")
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match="ungrouped Conv"):
        add_noise_input(grouped, 4, 1, "0")
    with pytest.raises(ValueError, match="takes 2 channels, fewer than the image's 3"):
        add_noise_input(MLP(2), 3, 2)
