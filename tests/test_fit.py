"""Parts that do not belong together are refused, and the honest gap is honest."""

import copy
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from ibmd_lite.bridges import VE, VP, Brownian, Flow
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.evaluation import refitted_gap
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BBDM, X0, BridgeModel, I2SBNoise, Retimed, Scalings, Source
from ibmd_lite.networks import MLP
from ibmd_lite.sampling import DBIM, Heun, Markov, sample
from ibmd_lite.training import Draws, Settings, Shuffled, checkpointed


def model(bridge=None, *, conditional=False, prediction=None, seed=0) -> BridgeModel:
    torch.manual_seed(seed)
    network = MLP(dimension=2, width=16, depth=1, conditional=conditional)
    nn.init.normal_(network.output_layer.weight, std=0.1)
    return BridgeModel(network, bridge or Brownian(1.0), conditional=conditional, prediction=prediction)


@pytest.mark.parametrize("step", [Markov(), DBIM(0.5), Heun()], ids=str)
def test_a_step_computes_on_the_device_of_its_batch(step):
    """The meta device refuses to mix with CPU tensors of one element or more, as CUDA does."""
    for bridge, conditional in ((Brownian(1.0), True), (Flow(), False)):
        ready = model(bridge, conditional=conditional).to("meta")
        source = Source(torch.zeros(4, 2, device="meta"))
        state = source.xT
        from ibmd_lite.sampling import Interval

        t, s = torch.tensor([0.5, 0.25], dtype=torch.float64)

        def predict(xt, t, ready=ready, source=source):
            time = torch.full((len(xt),), t.item(), device="meta")
            return ready(xt, time, **ready.given(source))

        at = Interval(bridge, predict, lambda: torch.zeros(4, 2, device="meta"), source.xT, t, s, last=False)
        assert step(state, at).device.type == "meta"


def test_heun_refuses_what_has_no_ode():
    with pytest.raises(ValueError, match="unconditional bridge model needs its score"):
        sample(model(), torch.zeros(3, 2), Brownian(1.0).grid(3), Heun())
    calls = []
    flow = model(Flow())
    flow.network.register_forward_hook(lambda *_: calls.append(1))
    assert sample(flow, torch.zeros(3, 2), Flow().grid(3), Heun()).nfe == len(calls) == 5


def test_heun_from_a_pinned_end_has_the_error_its_docstring_states():
    """The spread of x0 given xT: 2.3 % too large in the limit of a fine even grid."""
    bridge, truth = Brownian(1.0), GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69)

    class Exact(nn.Module):
        def forward(self, xt, time, xT):
            return truth.posterior_mean(bridge, xt, time[:1] / 1000, xT)

    exact = BridgeModel(Exact(), bridge, conditional=True)
    xT = torch.zeros(2, 1, dtype=torch.float64)
    unit = torch.tensor([[0.0], [1.0]], dtype=torch.float64)  # the map from the one draw to x0 is affine
    x0 = sample(exact, xT, bridge.grid(400), Heun(), noise=[unit]).x0
    assert (x0[1] - x0[0]).item() / 0.8 == pytest.approx(1.023, abs=2e-3)


@dataclass(frozen=True)
class OwnPrediction:
    """A prediction type that the package does not know."""

    gain: float = 2.0

    def scalings(self, bridge, t):
        one = torch.ones_like(t)
        return Scalings(0 * one, self.gain * one, one, 1000 * t)


class OwnPlainPrediction(OwnPrediction):
    pass


@pytest.mark.parametrize("prediction", [OwnPrediction(), OwnPlainPrediction(3.0)])
def test_a_student_with_a_prediction_of_ones_own_is_saved_and_loaded(tmp_path, prediction):
    student = Student.of(model(prediction=prediction))
    student.save(tmp_path / "s.safetensors")
    network = MLP(dimension=2, width=16, depth=1)
    with pytest.raises(ValueError, match="give load\\(\\) a bridge or prediction of your own"):
        Student.load(tmp_path / "s.safetensors", network)
    again = Student.load(tmp_path / "s.safetensors", network, prediction=prediction)
    xT, seeds = torch.randn(3, 2), [torch.Generator().manual_seed(1) for _ in range(2)]
    assert torch.equal(student(xT, generator=seeds[0]), again(xT, generator=seeds[1]))


@pytest.mark.parametrize(
    ("fake", "error", "message"),
    [
        (MLP(), TypeError, "fake must be a BridgeModel, got MLP"),
        (model(conditional=True), ValueError, "both be conditional or both not"),
        (model(VP()), ValueError, "the fake is .*VP.*give them one bridge"),
        (model(prediction=BBDM()), ValueError, "the fake is .*BBDM.*give them one bridge and prediction"),
        (
            model(prediction=Retimed(X0(), "1000 t/T")),
            ValueError,
            r"the fake is .*Retimed\(prediction=X0\(\).*one bridge",
        ),
    ],
)
def test_a_fake_that_does_not_fit_is_refused(fake, error, message):
    teacher = model()
    with pytest.raises(error, match=message):
        Distillation(teacher, Student.of(teacher), fake=fake, device="cpu")


class Unlike:
    """No dataclass: equal to itself alone, and a copy of it is another."""

    def __init__(self, inner):
        self.inner = inner

    def scalings(self, bridge, t):
        return self.inner.scalings(bridge, t)


@pytest.mark.parametrize("holder", [Unlike, partial(Retimed, time="t/T"), lambda x: Retimed(Unlike(x), "t/T")])
def test_what_a_prediction_holds_counts(holder):
    """Two that differ in what they hold alone are not alike, and a copy is."""
    teacher = model(prediction=holder(X0()))
    Distillation(teacher, Student.of(teacher), fake=copy.deepcopy(teacher), device="cpu")
    with pytest.raises(ValueError, match="give them one bridge and prediction"):
        Distillation(teacher, Student.of(teacher), fake=model(prediction=holder(BBDM())), device="cpu")


def test_a_checkpoint_of_another_retimed_teacher_is_refused():
    runs = [
        Distillation(teacher, Student.of(teacher), device="cpu")
        for teacher in (model(prediction=Retimed(inner, "t/T")) for inner in (X0(), BBDM(), X0()))
    ]
    state = runs[0].state_dict()
    runs[2].load_state_dict(state)
    with pytest.raises(ValueError, match="the checkpoint is of another run"):
        runs[1].load_state_dict(state)


def test_a_student_on_another_bridge_is_refused():
    with pytest.raises(ValueError, match=r"the student is .*VP.*the teacher .*Brownian"):
        Distillation(model(), Student.of(model(VP())), device="cpu")
    with pytest.raises(ValueError, match="ends at T = 1, the student at T = 80"):
        Distillation(model(), Student.of(model(VE())), device="cpu")


def test_settings_that_do_not_fit_are_refused():
    teacher = model()
    with pytest.raises(TypeError, match="DistillationSettings, got Settings"):
        Distillation(teacher, Student.of(teacher), settings=Settings(), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weight must be a function of t"):
        DistillationSettings(weight=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"fake_updates must be a whole number of at least 1, got 1\.5"):
        DistillationSettings(fake_updates=1.5)  # type: ignore[arg-type]


def test_images_of_another_channel_count_are_refused():
    teacher = model()
    student = Student.of(teacher)
    with pytest.raises(ValueError, match=r"takes xT of 2 channels, got shape \(4, 3\)"):
        student(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="takes 2 channels, expected 3 for images of 3"):
        Student.of(teacher, channels=3)
    with pytest.raises(ValueError, match="empty batch"):
        student(torch.zeros(0, 2))


def test_a_checkpoint_of_another_bridge_or_prediction_is_refused(tmp_path):
    points = torch.randn(20, 2)
    path = tmp_path / "teacher.pt"
    list(checkpointed(TeacherTraining(model(), device="cpu"), Shuffled(points, points, batch=8), 1, path, every=1))
    for other in (model(VP()), model(prediction=I2SBNoise())):
        with pytest.raises(ValueError, match="the checkpoint is of another model"):
            checkpointed(TeacherTraining(other, device="cpu"), Shuffled(points, points, batch=8), 2, path, every=1)
    path = tmp_path / "student.pt"
    for steps in (1, 2):
        teacher = model()
        run = Distillation(teacher, Student.of(teacher, steps=steps), device="cpu")
        stream = Draws(lambda n, generator: torch.randn(n, 2, generator=generator), 8)
        if steps == 1:
            list(checkpointed(run, stream, 1, path, every=1))
        else:
            with pytest.raises(ValueError, match="the checkpoint is of another run"):
                checkpointed(run, stream, 2, path, every=1)


def test_the_learning_rate_falls_along_a_cosine_to_zero():
    settings = Settings(1e-3, decay=100)
    assert settings.rate(1) == pytest.approx(1e-3)
    assert settings.rate(51) == pytest.approx(5e-4)
    assert settings.rate(101) == pytest.approx(0, abs=1e-12)
    assert Settings(1e-3).rate(10**6) == 1e-3


class Affine(nn.Module):
    """x0_hat = gain(t) xt + offset(t), exact at the start, free to learn: what a Gaussian truth needs."""

    def __init__(self, truth, bridge):
        super().__init__()
        self.truth, self.bridge = truth, bridge
        self.shift = nn.Linear(1, 1)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, xt, time):
        exact = self.truth.posterior_mean(self.bridge, xt[:, :1].double(), time.double() / 1000).float()
        return exact + self.shift(torch.ones_like(xt[:, :1]))


class Displaced(Student):
    """A student whose x0 is the truth's, moved by a constant."""

    def __init__(self, teacher, truth, offset):
        nn.Module.__init__(self)
        self.model, self.truth, self.offset, self.channels = teacher, truth, offset, 1

    def forward(self, source, *, generator=None):
        xT = Source.of(source).xT
        z = torch.randn(xT.shape, generator=generator)
        return 0.6 * xT + 0.3 + 0.8 * z + self.offset


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_the_refitted_gap_sees_what_a_lazy_fake_hides(offset):
    """The unconditional fake can learn a constant shift: the least gap over such fakes is known."""
    bridge, truth = Brownian(1.0), GaussianCoupling(0.6, 0.3, 0.8, 0.0, 1.69)
    teacher = BridgeModel(Affine(truth, bridge), bridge)
    before = copy.deepcopy(teacher.state_dict())
    draws = Draws(lambda n, generator: 1.3 * torch.randn(n, 1, generator=generator), 256)
    held_out = [next(draws) for _ in range(8)]
    found = refitted_gap(teacher, Displaced(teacher, truth, offset), draws, held_out, every=50, longest=400)
    # the fake's one free constant is E (1 - b gain) offset over times
    t = torch.linspace(1e-4, 1, 4001, dtype=torch.float64)
    gain = truth.denoiser(bridge, t, conditional=False).from_xt[:, 0, 0]
    constant = offset * (1 - bridge.coefficients(t)[1] * gain).mean().item()
    assert found.gap == pytest.approx(constant**2, abs=0.02)
    assert abs(found.lag) < 0.05
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())
    if offset:
        assert found.gap > 0.02


def test_refitting_needs_held_out_batches():
    teacher = model(prediction=X0())
    with pytest.raises(ValueError, match="held_out holds no batch"):
        refitted_gap(teacher, Student.of(teacher), iter([]), [])
