"""Distillation: the loss, where its gradient goes, what is drawn and called, what a student is and learns."""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.bridges import I2SB, VE, VP, Bridge, Brownian, ResShift
from ibmd_lite.data.plane import RotatedNoisy
from ibmd_lite.distillation import (
    Distillation,
    DistillationSettings,
    Student,
    end_of_chain,
    ibmd_loss,
    random_step,
    refilled_chain,
)
from ibmd_lite.gaussian import GaussianCoupling
from ibmd_lite.matching import TeacherTraining, matching_loss
from ibmd_lite.model import DDBM, BridgeModel, I2SBNoise, Source
from ibmd_lite.networks import MLP, UNet
from ibmd_lite.training import Draws, Settings


def mlp(seed: int, conditional: bool = False, width: int = 16) -> MLP:
    """A perceptron whose output is not 0."""
    torch.manual_seed(seed)
    network = MLP(2, width, 1, conditional)
    nn.init.normal_(network.output_layer.weight, std=0.3)
    return network


def bridge_model(seed: int = 0, conditional: bool = False, bridge: Bridge | None = None) -> BridgeModel:
    return BridgeModel(mlp(seed, conditional), bridge or Brownian(), conditional=conditional)


def settings(learning_rate: float = 1e-3, **more: object) -> DistillationSettings:
    return DistillationSettings(
        generator=Settings(learning_rate, betas=(0.0, 0.999), average=0.9),
        fake=Settings(learning_rate, betas=(0.0, 0.999), average=None),
        **more,  # type: ignore[arg-type]
    )


def noises(batch: int = 8) -> Draws:
    return Draws(lambda n, random: torch.randn(n, 2, generator=random), batch)


def digest(module: nn.Module) -> str:
    state = module.state_dict()
    return hashlib.sha256(
        b"".join(name.encode() + value.numpy().tobytes() for name, value in state.items())
    ).hexdigest()


# The loss.


def float64_case(conditional: bool) -> tuple[BridgeModel, BridgeModel, Tensor, Tensor, Tensor, Tensor]:
    teacher, fake = bridge_model(1, conditional).double(), bridge_model(2, conditional).double()
    random = torch.Generator().manual_seed(0)
    x0, xT, noise = torch.randn(3, 7, 2, generator=random, dtype=torch.float64)
    t = torch.rand(7, generator=random, dtype=torch.float64)
    return teacher, fake, x0, xT, noise, t


def answers(
    teacher: BridgeModel, fake: BridgeModel, x0: Tensor, xT: Tensor, noise: Tensor, t: Tensor, *, detached: bool = False
) -> tuple[Tensor, Tensor]:
    """What teacher and fake say of the Brownian state, its formula written out."""
    time = t[:, None]
    state = x0.detach() if detached else x0
    xt = time * xT + (1 - time) * state + (time * (1 - time)).sqrt() * noise
    partner = (xT,) if teacher.conditional else ()
    return teacher.network(xt, 1000 * t, *partner), fake.network(xt, 1000 * t, *partner)


@pytest.mark.parametrize("conditional", [False, True])
def test_loss_is_twice_sid_at_one_half(conditional: bool) -> None:
    """SiD (2404.04057) in x0 space: <x* - x_F, (x* - x0) - alpha (x* - x_F)>, alpha = 1/2."""
    teacher, fake, x0, xT, noise, t = float64_case(conditional)
    with torch.no_grad():
        told, guessed = answers(teacher, fake, x0, xT, noise, t)
    sid = ((told - guessed) * ((told - x0) - 0.5 * (told - guessed))).mean(1)
    for n in range(len(t)):
        one = ibmd_loss(teacher, fake, x0[n : n + 1], xT[n : n + 1], t[n : n + 1], noise=noise[n : n + 1])
        assert one.loss.item() == pytest.approx(2 * sid[n].item(), abs=1e-12)
    whole = ibmd_loss(teacher, fake, x0, xT, t, noise=noise, weight=lambda t: 1 + t)
    assert whole.loss.item() == pytest.approx((2 * sid * (1 + t)).mean().item(), abs=1e-12)
    assert whole.gap.item() == pytest.approx(((told - guessed).square().mean(1) * (1 + t)).mean().item(), abs=1e-12)
    assert whole.distance.item() == pytest.approx((told - x0).abs().mean().item(), abs=1e-12)


def test_the_sign_rewards_what_the_teacher_expects() -> None:
    """A teacher that is right and a fake that is wrong: the loss is negative; the other way round, positive."""
    _, _, x0, xT, noise, t = float64_case(False)

    class Constant(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = nn.Parameter(value)

        def forward(self, xt: Tensor, time: Tensor) -> Tensor:
            return self.value + 0 * xt

    right, wrong = BridgeModel(Constant(x0.clone()), Brownian()), BridgeModel(Constant(x0 + 1), Brownian())
    assert ibmd_loss(right, wrong, x0, xT, t, noise=noise).loss.item() == pytest.approx(-1)
    assert ibmd_loss(wrong, right, x0, xT, t, noise=noise).loss.item() == pytest.approx(1)


@pytest.mark.parametrize("conditional", [False, True])
def test_gradient_flows_directly_and_through_the_state(conditional: bool) -> None:
    teacher, fake, x0, xT, noise, t = float64_case(conditional)

    def loss(x0: Tensor) -> Tensor:
        return ibmd_loss(teacher, fake, x0, xT, t, noise=noise).loss

    free = x0.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(free), free)
    with torch.no_grad():  # central differences, one number of x0 at a time
        numeric = torch.zeros_like(x0)
        for i, j in itertools.product(range(7), range(2)):
            push = torch.zeros_like(x0)
            push[i, j] = 1e-5
            numeric[i, j] = (loss(x0 + push) - loss(x0 - push)) / 2e-5
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-9)

    told, guessed = answers(teacher, fake, free, xT, noise, t, detached=True)
    (direct,) = torch.autograd.grad(((told - free) ** 2 - (guessed - free) ** 2).mean(), free)
    assert (direct - gradient).norm() > 0.1 * gradient.norm(), "so the comparison would notice a detached xt"
    assert direct.norm() > 0.1 * gradient.norm()


# Where gradients go in a run.


class CountedProduct(torch.autograd.Function):
    """x W^T + b, which counts how often the gradient of W is computed."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, layer: CountedLinear) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            ctx.layer.input_gradients += 1
            to_x = gradient @ weight
        if ctx.needs_input_grad[1]:
            ctx.layer.weight_gradients += 1
            to_weight = gradient.T @ x
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(0)
        return to_x, to_weight, to_bias, None


class CountedLinear(nn.Linear):
    weight_gradients = 0
    input_gradients = 0

    def forward(self, x: Tensor) -> Tensor:
        return CountedProduct.apply(x, self.weight, self.bias, self)


class CountedNetwork(nn.Module):
    """A perceptron that counts gradients and keeps what it is called with."""

    def __init__(self, conditional: bool = False) -> None:
        super().__init__()
        self.input_layer = CountedLinear(4 if conditional else 2, 8)
        self.output_layer = CountedLinear(8, 2)
        self.calls: list[tuple[bool, Tensor, Tensor]] = []

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None) -> Tensor:
        self.calls.append((torch.is_grad_enabled(), xt.detach(), time))
        points = xt if xT is None else torch.cat([xt, xT], 1)
        return self.output_layer(torch.tanh(self.input_layer(points)) + time[:, None] / 1000)

    def counted(self) -> tuple[int, int]:
        layer = self.output_layer
        return layer.weight_gradients, layer.input_gradients


@pytest.mark.parametrize("conditional", [False, True])
def test_weight_gradients_are_computed_where_they_are_needed_alone(conditional: bool) -> None:
    """L=3, two updates.  Fake: 6 weight gradients from its own steps, none more; generator: 2; teacher: none."""
    torch.manual_seed(0)
    teacher = BridgeModel(CountedNetwork(conditional), Brownian(), conditional=conditional)
    student = Student.of(teacher)
    run = Distillation(teacher, student, settings=settings(fake_updates=3), device="cpu")
    accumulated = {"fake": 0, "student": 0, "teacher": 0}

    def count(name: str) -> object:
        def hook(_: Tensor) -> None:
            accumulated[name] += 1

        return hook

    run.fake.network.output_layer.weight.register_post_accumulate_grad_hook(count("fake"))
    student.model.network.output_layer.weight.register_post_accumulate_grad_hook(count("student"))
    for update, _ in enumerate(run.updates(noises(), 2), start=1):
        assert run.fake.network.counted() == (3 * update, 4 * update), "and the gradient to xt in the generator step"
        assert teacher.network.counted() == (0, update)
        assert student.model.network.counted()[0] == update, "no graph of the generator in the fake's updates"
        assert accumulated == {"fake": 3 * update, "student": update, "teacher": 0}
        for model in (teacher, run.fake):
            assert all(p.grad is None for p in model.parameters())
        assert all(p.requires_grad for p in run.fake.parameters()), "the fake learns on"


def test_every_step_has_a_fresh_batch_and_the_generator_a_graph_in_its_own_only() -> None:
    drawn: list[Tensor] = []
    seen: list[tuple[Tensor, bool, bool]] = []

    def draw(n: int, random: torch.Generator) -> Tensor:
        drawn.append(torch.randn(n, 2, generator=random))
        return drawn[-1]

    def rollout(student: Student, source: Source, generator: torch.Generator) -> Tensor:
        x0 = end_of_chain(student, source, generator)
        seen.append((source.xT, torch.is_grad_enabled(), x0.requires_grad))
        return x0

    teacher = BridgeModel(CountedNetwork(), Brownian())
    run = Distillation(teacher, Student.of(teacher), settings=settings(fake_updates=4, rollout=rollout), device="cpu")
    list(run.updates(Draws(draw, 8), 3))
    assert len(drawn) == len(seen) == 3 * (4 + 1)
    assert all(torch.equal(x, y) for x, (y, _, _) in zip(drawn, seen, strict=True)), "used once each, in order"
    assert [graph for _, _, graph in seen] == [enabled for _, enabled, _ in seen] == ([False] * 4 + [True]) * 3

    fake_calls, teacher_calls = run.fake.network.calls, teacher.network.calls
    assert len(fake_calls) == 15
    assert len({time.sum().item() for _, _, time in fake_calls}) == 15, "fresh times"
    z = run.student_learner.module.model.network.calls
    assert len({state[:, 2:].sum().item() for _, state, _ in z}) == 15, "fresh z"
    for update, (_, state, time) in enumerate(teacher_calls):
        _, fake_state, fake_time = fake_calls[5 * update + 4]
        assert torch.equal(state, fake_state), "teacher and fake judge one state"
        assert torch.equal(time, fake_time)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fake_updates_share_generated_batches_but_neither_times_nor_noise(
    accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L=5, reuse=2: three groups of fake updates; the batches of an update come again in the next, in their order."""
    told: list[tuple[float, float, float, float]] = []

    def told_loss(
        model: BridgeModel, x0: Tensor, source: Source, t: Tensor, *, weight: object, noise: Tensor
    ) -> Tensor:
        told.append((x0.sum().item(), source.xT.sum().item(), t.sum().item(), noise.sum().item()))
        return matching_loss(model, x0, source, t, noise=noise)

    monkeypatch.setattr("ibmd_lite.distillation.matching_loss", told_loss)
    learns = Settings(1e-3, average=None, accumulate=accumulate)
    chosen = DistillationSettings(generator=learns, fake=learns, fake_updates=5, reuse=2)
    teacher = BridgeModel(CountedNetwork(), Brownian())
    run = Distillation(teacher, Student.of(teacher), settings=chosen, device="cpu")
    generated = run.student_learner.module.model.network.calls
    for update, _ in enumerate(run.updates(noises(), 3), start=1):
        assert [graph for graph, _, _ in generated] == ([False] * 3 * accumulate + [True] * accumulate) * update
        own = told[-5 * accumulate :]
        first, again, second, once_more, third = (own[k * accumulate : (k + 1) * accumulate] for k in range(5))
        for images, repeated in ((first, again), (second, once_more)):
            assert [one[:2] for one in images] == [one[:2] for one in repeated], "x0 and the source it was made from"
        assert len({x0 for x0, *_ in first + second + third}) == 3 * accumulate
    for drawn in list(zip(*told, strict=True))[2:]:
        assert len(set(drawn)) == 3 * 5 * accumulate, "times and noise are new in every batch"


@pytest.mark.parametrize("conditional", [False, True])
def test_the_teacher_is_not_changed(conditional: bool) -> None:
    teacher = bridge_model(conditional=conditional)
    before = digest(teacher)
    student = Student.of(teacher)
    started = digest(student)
    run = Distillation(teacher, student, settings=settings(1e-2), device="cpu")
    records = list(run.updates(noises(), 10))
    assert digest(teacher) == before
    assert digest(student) != started
    assert digest(run.fake) != before
    assert digest(run.student) != digest(student), "the average is not the last"
    assert [record.update for record in records] == list(range(1, 11))
    for record in records:
        assert record.lag == pytest.approx(record.loss - record.gap, abs=1e-12)
        assert record.gap >= 0
        assert record.fake_loss > 0
        assert record.seconds > 0


def test_normalisation_divides_by_the_distance_without_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    for normalise in (False, True):
        descended: list[float] = []
        generated: list[Tensor] = []
        told: list[Tensor] = []

        def rollout(
            student: Student, source: Source, generator: torch.Generator, generated: list = generated
        ) -> Tensor:
            generated.append(end_of_chain(student, source, generator))
            return generated[-1]

        teacher = bridge_model()
        chosen = settings(fake_updates=1, normalise=normalise, rollout=rollout, weight=lambda t: 1 + 0 * t)
        run = Distillation(teacher, Student.of(bridge_model(3)), settings=chosen, device="cpu")
        teacher.network.register_forward_hook(lambda _m, _i, output, told=told: told.append(output))
        step = run.student_learner.step
        monkeypatch.setattr(
            run.student_learner, "step", lambda loss_of, n, step=step, d=descended: d.append(step(loss_of, n))
        )
        (record,) = run.updates(noises(), 1)
        distance = (told[-1] - generated[-1]).abs().mean().item()
        assert abs(record.loss) > 1e-6
        assert descended[0] == pytest.approx(record.loss / (distance if normalise else 1), rel=1e-5)


def test_the_weight_is_of_the_generators_loss() -> None:
    teacher = bridge_model()
    run = Distillation(teacher, Student.of(teacher), settings=settings(weight=lambda t: 0 * t), device="cpu")
    record = list(run.updates(noises(), 2))[-1]
    assert (record.loss, record.gap) == (0, 0)
    assert record.fake_loss > 0


# The lag.

TRUTH = {"A": 0.6, "m": 0.3, "tau": 0.8}


class GaussianNetwork(nn.Module):
    """E[x0 | xt], exact, of a coupling whose three numbers can be learnt; xT ~ N(0, 1.69), Brownian eps=1."""

    def __init__(self, A: float, m: float, tau: float) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([A, m, tau], dtype=torch.float64))

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        coupling = GaussianCoupling(*self.numbers, 0.0, 1.69)  # type: ignore[arg-type]
        return coupling.posterior_mean(Brownian(), xt.double(), time.double() / 1000).to(xt.dtype)


class AffineGenerator(nn.Module):
    """x0 = A xT + m + tau z."""

    def __init__(self, A: float, m: float, tau: float) -> None:
        super().__init__()
        self.input_layer = nn.Linear(2, 1)
        with torch.no_grad():
            self.input_layer.weight.copy_(torch.tensor([[A, tau]]))
            self.input_layer.bias.fill_(m)

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        return self.input_layer(xt)


def gaussian_run(student_m: float, fake_m: float, fake_rate: float, generator_rate: float) -> Distillation:
    teacher = BridgeModel(GaussianNetwork(**TRUTH), Brownian())
    generator = BridgeModel(AffineGenerator(**TRUTH | {"m": student_m}), Brownian())
    fake = BridgeModel(GaussianNetwork(**TRUTH | {"m": fake_m}), Brownian())
    chosen = DistillationSettings(
        generator=Settings(generator_rate, betas=(0.0, 0.999), average=0.9),
        fake=Settings(fake_rate, betas=(0.0, 0.999), average=None),
    )
    return Distillation(teacher, Student(generator, 1, 1, Brownian().grid(1)), fake=fake, settings=chosen, device="cpu")


def sources(batch: int) -> Iterator[Tensor]:
    return Draws(lambda n, random: 1.3 * torch.randn(n, 1, generator=random), batch)


def test_lag_shows_a_fake_that_does_not_learn() -> None:
    """Student displaced by 1, fake left behind at half of it; the generator stands still.

    Means of 20 batches of 512: a lag is known to about 0.006, where the standing fake's is 0.19.
    """
    ends = {}
    for name, rate in (("learns", 2e-2), ("stands", 1e-12)):
        records = list(gaussian_run(1.3, 0.8, rate, 1e-12).updates(sources(512), 40))[20:]
        ends[name] = {what: sum(getattr(r, what) for r in records) / 20 for what in ("loss", "gap", "lag")}
    learns, stands = ends["learns"], ends["stands"]
    assert stands["lag"] > 0.5 * stands["gap"] > 0, stands
    assert abs(learns["lag"]) < 0.15 * learns["gap"], learns
    assert abs(learns["lag"]) < 0.15 * abs(stands["lag"])
    assert learns["gap"] > 2 * stands["gap"], "the true gap was hidden by the fake that stood"


def test_a_fake_that_stays_the_teacher_shows_nothing_at_all() -> None:
    """Then loss, gap and lag are 0 to the bit however wrong the student is: 0 is a warning, not a success."""
    records = list(gaussian_run(1.3, 0.3, 1e-12, 1e-3).updates(sources(16), 3))
    assert all(max(abs(r.loss), r.gap, abs(r.lag)) < 1e-9 for r in records)


def test_a_displaced_gaussian_student_comes_back() -> None:
    """The optimum of the objective is the coupling (METHOD: with z both kinds recover the truth); here its mean."""
    run = gaussian_run(1.3, 0.3, 2e-2, 2e-2)
    list(run.updates(sources(64), 120))
    bias = run.student.model.network.input_layer.bias.item()
    assert bias == pytest.approx(0.3, abs=0.15)


# The student.


@pytest.mark.parametrize("prediction", [None, DDBM()])
@pytest.mark.parametrize("bridge", [Brownian(), VP(), I2SB(n=10)])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_student_starts_as_its_teacher(conditional: bool, bridge: Bridge, prediction: DDBM | None) -> None:
    teacher = BridgeModel(mlp(0, conditional), bridge, conditional=conditional, prediction=prediction)
    student = Student.of(teacher, noise_channels=3)
    xT = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    T = torch.full((6,), bridge.T)
    with torch.no_grad():
        expected = teacher(xT, T, xT) if conditional else teacher(xT, T)
        for seed in range(3):
            x0 = student(xT, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(x0, expected, rtol=1e-5, atol=1e-6)
        moved = copy.deepcopy(student)
        moved.model.network.input_layer.weight[:, 2:5] = 1.0  # the columns of z stand after those of xt
        first, second = (moved(xT, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert not torch.allclose(first, second)
    assert digest(student) != digest(teacher)
    assert all(p.requires_grad for p in student.parameters())
    assert student.nfe == 1


def test_a_student_of_a_frozen_teacher_can_learn() -> None:
    teacher = bridge_model().requires_grad_(False)
    assert all(p.requires_grad for p in Student.of(teacher).parameters())


@pytest.mark.parametrize("conditional", [False, True])
def test_without_noise_channels_a_student_is_deterministic(conditional: bool) -> None:
    teacher = bridge_model(conditional=conditional)
    student = Student.of(teacher, noise_channels=0)
    xT = torch.randn(5, 2)
    assert torch.equal(student(xT), student(xT))
    assert digest(student.model) == digest(teacher)
    run = Distillation(teacher, student, settings=settings(), device="cpu")
    assert len(list(run.updates(noises(), 2))) == 2


def test_two_steps_are_the_posterior_between_two_calls() -> None:
    teacher = bridge_model(bridge=Brownian(eps=0.5))
    student = Student.of(teacher, steps=2, noise_channels=0)
    xT = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        first = teacher.network(xT, torch.full((4,), 1000.0))
        middle = 0.5 * xT + 0.5 * first + math.sqrt(0.5 * 0.25) * noise  # s=1/2 of t=1: variance eps s (t-s)/t
        expected = teacher.network(middle, torch.full((4,), 500.0))
    x0 = student(xT, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(x0, expected, rtol=1e-5, atol=1e-6)
    assert student.nfe == 2


@pytest.mark.parametrize("conditional", [False, True])
def test_the_whole_chain_is_run_and_its_last_step_trained(conditional: bool) -> None:
    teacher = BridgeModel(CountedNetwork(conditional), Brownian(), conditional=conditional)
    student = Student.of(teacher, steps=3)
    calls = student.model.network.calls
    calls.clear()
    x0 = end_of_chain(student, Source(torch.randn(4, 2)), torch.Generator().manual_seed(0))
    assert [graph for graph, _, _ in calls] == [False, False, True]
    assert [round(time[0].item()) for _, _, time in calls] == [1000, 667, 333]
    x0.sum().backward()
    assert student.model.network.counted()[0] == 1


def test_the_gradient_may_flow_through_the_whole_chain() -> None:
    student = Student.of(BridgeModel(CountedNetwork(), Brownian()), steps=3)
    x0 = student.walk(Source(torch.randn(4, 2)), 3, torch.Generator().manual_seed(0), through=True)
    assert [graph for graph, _, _ in student.model.network.calls] == [True, True, True]
    x0.sum().backward()
    assert student.model.network.counted()[0] == 3


def test_random_steps_train_every_step_equally_often() -> None:
    teacher = BridgeModel(CountedNetwork(), Brownian())
    student = Student.of(teacher, steps=3)
    calls = student.model.network.calls
    trained = {333: 0, 667: 0, 1000: 0}
    generator, source = torch.Generator().manual_seed(0), Source(torch.randn(2, 2))
    for _ in range(300):
        calls.clear()
        random_step(student, source, generator)
        assert [graph for graph, _, _ in calls] == [False] * (len(calls) - 1) + [True]
        times = [round(time[0].item()) for _, _, time in calls]
        assert times == [1000, 667, 333][: len(times)], "rolled back from T by the student itself"
        trained[times[-1]] += 1
    # 300 draws of 1/3: 100 +- 8 each; 5 standard deviations
    assert all(60 < count < 140 for count in trained.values()), trained


def test_at_one_step_both_regimes_are_one() -> None:
    student = Student.of(bridge_model(), noise_channels=0)
    source, generator = Source(torch.randn(4, 2)), torch.Generator().manual_seed(0)
    assert torch.equal(end_of_chain(student, source, generator), random_step(student, source, generator))


@pytest.mark.parametrize("rollout", [end_of_chain, random_step])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("bridge", [Brownian(), VP(), VE(), I2SB(n=12), ResShift(steps=6)])
def test_few_steps_distil_on_every_bridge(bridge: Bridge, conditional: bool, rollout: object) -> None:
    teacher = bridge_model(conditional=conditional, bridge=bridge)
    student = Student.of(teacher, steps=3)
    run = Distillation(teacher, student, settings=settings(rollout=rollout, fake_updates=2), device="cpu")
    records = list(run.updates(noises(), 2))
    assert all(math.isfinite(record.loss) for record in records)
    assert run.student(torch.randn(5, 2)).shape == (5, 2)


def test_a_bridge_with_a_noisy_end_starts_noisy() -> None:
    bridge = ResShift(kappa=2.0, steps=4)
    torch.manual_seed(0)
    teacher = BridgeModel(CountedNetwork(), bridge)
    student = Student.of(teacher)
    xT = torch.full((4000, 2), 5.0)
    student(xT, generator=torch.Generator().manual_seed(0))
    _, state, time = student.model.network.calls[-1]
    assert torch.equal(time, torch.full((4000,), 1000.0))
    start, z = state[:, :2], state[:, 2:]
    # 8000 draws: a mean is off by 0.022 and a std by 0.016 (one standard deviation)
    assert start.mean().item() == pytest.approx(5.0, abs=0.1)
    assert start.std().item() == pytest.approx(2 * 0.99, abs=0.08)
    assert z.std().item() == pytest.approx(1.0, abs=0.05)
    assert abs(((start - 5) * z).mean().item()) < 0.12, "z is not the end's noise"


def test_students_refuse() -> None:
    teacher = bridge_model()
    with pytest.raises(ValueError, match="at least one step, got 0"):
        Student.of(teacher, steps=0)
    with pytest.raises(ValueError, match=r"no layer 'first'.*input_layer"):
        Student.of(teacher, input_layer="first")
    for grid in ([1.0], [0.5, 0.0], [1.0, 0.5], [1.0, 0.2, 0.5, 0.0]):
        with pytest.raises(ValueError, match=r"falls from T = 1 to 0, got"):
            Student(teacher, 2, 0, torch.tensor(grid))
    with pytest.raises(ValueError, match="NaN or infinite"):
        Student.of(teacher)(torch.full((2, 2), math.nan))
    with pytest.raises(TypeError, match="tensor xT or a Source, got list"):
        Student.of(teacher)([[0.0, 1.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole number of at least 1, got 0"):
        DistillationSettings(fake_updates=0)
    for reuse in (0, 6, 1.5):
        with pytest.raises(ValueError, match=rf"from 1 to fake_updates = 5, got {reuse}"):
            DistillationSettings(reuse=reuse)  # type: ignore[arg-type]


# Masks.


class Pixels(nn.Module):
    def __init__(self, conditional: bool = False) -> None:
        super().__init__()
        self.input_layer = nn.Conv2d(6 if conditional else 3, 3, 3, padding=1)

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None) -> Tensor:
        return self.input_layer(xt if xT is None else torch.cat([xt, xT], 1)) + time.reshape(-1, 1, 1, 1) / 1000


def masked(seed: int = 0) -> Source:
    random = torch.Generator().manual_seed(seed)
    mask = torch.zeros(4, 1, 6, 6)
    mask[:2, :, 2:5, 1:4], mask[2:, :, :3] = 1, 1
    return Source(torch.randn(4, 3, 6, 6, generator=random), mask)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_known_pixels_are_kept_to_the_bit(conditional: bool, steps: int) -> None:
    torch.manual_seed(0)
    student = Student.of(BridgeModel(Pixels(conditional), Brownian(), conditional=conditional), steps=steps)
    source = masked()
    x0 = student.walk(source, steps)
    known = source.mask.expand_as(x0) == 0
    assert torch.equal(x0[known], source.xT[known])
    assert not torch.isclose(x0[~known], source.xT[~known]).any()
    (gradient,) = torch.autograd.grad(x0[known].sum(), student.model.network.input_layer.weight)
    assert not gradient.any()


class Elsewhere(nn.Module):
    """A network whose answer on the known pixels is off by a lot."""

    def __init__(self, network: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.network, self.mask = network, mask

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        return self.network(xt, time) + 1000 * (1 - self.mask)


def test_losses_ignore_known_pixels() -> None:
    torch.manual_seed(0)
    source = masked()
    x0, noise = torch.randn(2, 4, 3, 6, 6)
    t = torch.linspace(0.1, 0.9, 4)
    networks = Pixels(), Pixels()
    clean = [BridgeModel(network, Brownian()) for network in networks]
    odd = [BridgeModel(Elsewhere(network, source.mask), Brownian()) for network in networks]
    expected, losses = (ibmd_loss(*pair, x0, source, t, noise=noise) for pair in (clean, odd))
    torch.testing.assert_close(losses, expected)
    teacher, fake = (model(Brownian().sample(x0, source.xT, t, noise), t) for model in clean)
    hole = source.mask.expand_as(x0) == 1
    by_hand = ((teacher - x0) ** 2 - (fake - x0) ** 2)[hole].mean()
    assert losses.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_masked_distillation_feeds_one_draw_to_all() -> None:
    """The hole's noise in xT is the generator's input, the bridge's end and what is composed: one Source."""
    torch.manual_seed(0)
    teacher = BridgeModel(Pixels(), Brownian())
    seen: list[tuple[Tensor, Tensor]] = []

    def rollout(student: Student, source: Source, generator: torch.Generator) -> Tensor:
        x0 = end_of_chain(student, source, generator)
        seen.append((x0.detach(), source.xT))
        return x0

    run = Distillation(teacher, Student.of(teacher, noise_channels=0), settings=settings(rollout=rollout), device="cpu")
    list(run.updates((masked(seed) for seed in itertools.count()), 2))
    known = masked().mask.expand(4, 3, 6, 6) == 0
    assert all(torch.equal(x0[known], xT[known]) for x0, xT in seen)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_refilled_chain_starts_from_other_noise_and_the_bridge_from_its_own(
    conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = UNet(width=8, multipliers=(1,), blocks=1, conditional=conditional)
    teacher = BridgeModel(network, Brownian(), conditional=conditional)
    student = Student.of(teacher, steps=2, noise_channels=0)
    source, walked, bridged = masked(), [], []
    hole = source.mask.expand_as(source.xT) == 1
    student.model.register_forward_pre_hook(lambda _m, given: walked.append(given[0]))
    refilled_chain(student, source, torch.Generator().manual_seed(1))
    first = walked[0]
    assert torch.equal(first[~hole], source.xT[~hole]), "what is known stays"
    assert (first[hole] != source.xT[hole]).all(), "and the noise of the hole is another"
    assert (first[hole].mean().abs(), first[hole].std()) == pytest.approx((0, 1), abs=0.2)

    draw = Brownian.sample

    def seen(bridge: Brownian, x0: Tensor, xT: Tensor, *more: Tensor) -> Tensor:
        bridged.append((x0.detach(), xT))
        return draw(bridge, x0, xT, *more)

    monkeypatch.setattr(Brownian, "sample", seen)
    run = Distillation(teacher, student, settings=settings(rollout=refilled_chain, fake_updates=2), device="cpu")
    list(run.updates((masked(seed) for seed in itertools.count()), 1))
    assert len(bridged) == 3, "two fake updates and the generator's"
    for seed, (x0, xT) in enumerate(bridged):
        assert torch.equal(xT, masked(seed).xT), "the bridge ends at the source as it came"
        assert torch.equal(x0[~hole], xT[~hole])


def test_without_a_hole_a_refilled_chain_is_the_chain() -> None:
    student = Student.of(bridge_model(), steps=3)
    source = Source(torch.randn(4, 2))
    ends = [walk(student, source, torch.Generator().manual_seed(0)) for walk in (end_of_chain, refilled_chain)]
    assert torch.equal(*ends)


# Many teachers.


class TaskNetwork(nn.Module):
    """A perceptron that is told the task."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(5, width=16)
        self.input_layer = self.body.input_layer
        self.shift = nn.Embedding(2, 16)
        self.tasks: list[int] = []

    def forward(self, xt: Tensor, time: Tensor, *, task: Tensor) -> Tensor:
        self.tasks.append(int(task[0]))
        hidden = self.body.input_layer(xt) + self.shift(task)
        return self.body.output_layer(torch.tanh(hidden)) + time[:, None] / 1000


def many() -> tuple[dict[int, BridgeModel], Student, BridgeModel]:
    torch.manual_seed(0)
    teachers = {0: bridge_model(0), 1: bridge_model(1)}
    model = BridgeModel(TaskNetwork(), Brownian())
    student = Student(model, 2, 0, Brownian().grid(1))
    return teachers, student, BridgeModel(TaskNetwork(), Brownian())


def test_each_task_has_its_teacher_and_all_see_the_task() -> None:
    teachers, student, fake = many()
    asked: list[int] = []
    for task, teacher in teachers.items():
        teacher.network.register_forward_hook(lambda *_, task=task: asked.append(task))
    run = Distillation(teachers, student, fake=fake, settings=settings(fake_updates=2), device="cpu")
    tasks = [0, 1, 0, 1, 0, 1, 1, 1, 0]  # two fake updates and the generator's, three times
    before = [digest(teacher) for teacher in teachers.values()]
    list(run.updates((Source(torch.randn(4, 2), task=task) for task in tasks), 3))
    assert asked == [tasks[2], tasks[5], tasks[8]]
    assert run.fake.network.tasks == tasks
    assert student.model.network.tasks == tasks
    assert [digest(teacher) for teacher in teachers.values()] == before


def test_each_teacher_keeps_its_own_bridge() -> None:
    teachers = {0: bridge_model(0, bridge=Brownian(eps=0.1)), 1: bridge_model(1, bridge=VP())}
    _, student, fake = many()
    run = Distillation(teachers, student, fake=fake, settings=settings(), device="cpu")
    assert {task: model.bridge for task, model in run.fakes.items()} == {0: Brownian(eps=0.1), 1: VP()}
    assert run.fakes[0].network is run.fakes[1].network is run.fake.network


def test_a_student_of_several_steps_walks_its_tasks_own_bridge(tmp_path) -> None:
    bridges = {0: Brownian(eps=0.1), 1: VP()}
    teachers = {task: bridge_model(task, bridge=bridge) for task, bridge in bridges.items()}
    model, fake = (BridgeModel(MLP(width=16, depth=1, tasks=2), Brownian(eps=0.1)) for _ in range(2))
    shared = Student(model, 2, 0, Brownian().grid(2))
    with pytest.raises(ValueError, match=r"teacher 1 walks VP.*the student Brownian\(eps=0\.1.*tasks=teachers"):
        Distillation(teachers, shared, fake=fake, settings=settings(), device="cpu")
    student = Student(model, 2, 0, Brownian().grid(2), {task: teacher.form for task, teacher in teachers.items()})
    run = Distillation(teachers, student, fake=fake, settings=settings(), device="cpu")
    list(run.updates((Source(torch.randn(4, 2), task=k % 2) for k in itertools.count()), 2))
    xT, (t, s) = torch.randn(50, 2), student.grid[:2]
    for task, bridge in bridges.items():
        source = Source(xT, task=task)
        x0 = run.student.step(xT, t, source)
        from_xt, from_x0, std = (weight.item() for weight in bridge.posterior(t, s))
        noise = torch.randn(xT.shape, generator=torch.Generator().manual_seed(1))
        expected = run.student.step(from_xt * xT + from_x0 * x0 + std * noise, s, source)
        answer = run.student(source, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(answer, expected)
    run.student.save(tmp_path / "student.safetensors")
    again = Student.load(tmp_path / "student.safetensors", MLP(width=16, depth=1, tasks=2))
    assert again.tasks == student.tasks
    assert (again.model_of(1).bridge, again.model_of(None).bridge) == (VP(), model.bridge)


def test_tasks_whose_times_are_counted_otherwise_share_a_student(tmp_path) -> None:
    """I2SB counts to 999 and DDBM ends at 1: the student walks each task's own times."""
    teachers = {
        0: BridgeModel(mlp(0), I2SB(beta_max=0.3), prediction=I2SBNoise()),
        1: BridgeModel(mlp(1), VP(), prediction=DDBM()),
    }
    start, fake = (BridgeModel(MLP(width=16, depth=1, tasks=2), VP(), prediction=DDBM()) for _ in range(2))
    student = Student.of(start, steps=2, noise_channels=0, tasks=teachers)
    with pytest.raises(ValueError, match=r"teacher 0 ends at T = 999, the student at T = 1: .*tasks=teachers"):
        Distillation(teachers, Student.of(start, noise_channels=0), fake=fake, device="cpu")
    run = Distillation(teachers, student, fake=fake, settings=settings(fake_updates=1), device="cpu")
    before = copy.deepcopy(student.state_dict())
    list(run.updates((Source(torch.randn(4, 2), task=k // 2 % 2) for k in itertools.count()), 2))
    assert not torch.equal(
        before["model.network.input_layer.weight"],
        run.student_learner.module.state_dict()["model.network.input_layer.weight"],
    )
    run.student.save(tmp_path / "student.safetensors")
    again = Student.load(tmp_path / "student.safetensors", MLP(width=16, depth=1, tasks=2))
    xT, noise = torch.randn(50, 2), torch.randn((50, 2), generator=torch.Generator().manual_seed(1))
    for task, times in {0: (999.0, 500.0, 0.0), 1: (1.0, 0.5, 0.0)}.items():
        assert again.grid_of(task).tolist() == list(times) == teachers[task].bridge.grid(2).tolist()
        t, s, _ = again.grid_of(task)
        source, bridge = Source(xT, task=task), teachers[task].bridge
        from_xt, from_x0, std = (weight.item() for weight in bridge.posterior(t, s))
        x0 = again.step(bridge.start(xT), t, source)
        expected = again.step(from_xt * xT + from_x0 * x0 + std * noise, s, source)
        torch.testing.assert_close(again(source, generator=torch.Generator().manual_seed(1)), expected)


def mixed() -> tuple[dict[int, BridgeModel], Student, BridgeModel]:
    """An unconditional teacher and a conditional one, each with its own prediction; student and fake for both."""
    torch.manual_seed(0)
    shape = {"width": 8, "multipliers": (1,)}
    networks = [UNet(3, **shape), UNet(3, **shape, conditional=True)]
    shared = [UNet(3, **shape, conditional="optional", tasks=2) for _ in range(2)]
    for network in [*networks, *shared]:
        nn.init.normal_(network.output_layer.weight, std=0.1)
    teachers = {
        0: BridgeModel(networks[0], Brownian(eps=0.1), prediction=I2SBNoise()),
        1: BridgeModel(networks[1], VP(), prediction=DDBM(), conditional=True),
    }
    start, fake = (BridgeModel(network, VP(), prediction=DDBM(), conditional=True) for network in shared)
    return teachers, Student.of(start, steps=2, tasks=teachers), fake


def test_teachers_that_see_xT_and_teachers_that_do_not_share_a_student(tmp_path) -> None:
    teachers, student, fake = mixed()
    given: list[tuple[str, int, bool]] = []
    for name, model in {"student": student.model, "fake": fake}.items():
        model.network.register_forward_pre_hook(
            lambda _, inputs, known, name=name: given.append((name, int(known["task"][0]), len(inputs) == 3)),
            with_kwargs=True,
        )
    run = Distillation(teachers, student, fake=fake, settings=settings(fake_updates=1), device="cpu")
    list(run.updates((Source(torch.randn(2, 3, 8, 8), task=k // 2 % 2) for k in itertools.count()), 2))
    assert set(given) == {(name, task, task == 1) for name in ("student", "fake") for task in (0, 1)}
    assert [run.student.model_of(task).form for task in (0, 1)] == [teacher.form for teacher in teachers.values()]
    run.student.save(tmp_path / "student.safetensors")
    network = UNet(3, 8, (1,), conditional="optional", tasks=2)
    again = Student.load(tmp_path / "student.safetensors", network)
    for task in (0, 1):
        source = Source(torch.randn(2, 3, 8, 8), task=task)
        answers = [one(source, generator=torch.Generator().manual_seed(1)) for one in (again, run.student)]
        assert torch.equal(*answers)


def test_networks_of_one_kind_do_not_serve_teachers_of_both() -> None:
    teachers, student, fake = mixed()
    fake.network.conditional = True
    with pytest.raises(ValueError, match="conditional='optional'"):
        Distillation(teachers, student, fake=fake, settings=settings(), device="cpu")


def test_each_task_has_its_own_weight() -> None:
    teachers, student, fake = many()
    asked: list[int] = []

    def weight_of(task: int) -> Callable[[Tensor], Tensor]:
        return lambda t: (asked.append(task), torch.ones_like(t))[1]

    weights = {task: weight_of(task) for task in teachers}
    run = Distillation(teachers, student, fake=fake, settings=settings(weight=weights, fake_updates=1), device="cpu")
    list(run.updates((Source(torch.randn(4, 2), task=k // 2 % 2) for k in itertools.count()), 4))
    assert [asked[k] for k in range(0, len(asked), len(asked) // 4)] == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"tasks \[0\], the teachers are of \[0, 1\]"):
        Distillation(teachers, student, fake=fake, settings=settings(weight={0: weight_of(0)}), device="cpu")


def test_many_teachers_refuse() -> None:
    teachers, student, fake = many()
    with pytest.raises(ValueError, match=r"several teachers need a fake .* pass fake="):
        Distillation(teachers, student, device="cpu")
    run = Distillation(teachers, student, fake=fake, settings=settings(), device="cpu")
    for task in (2, None):
        with pytest.raises(ValueError, match=rf"task {task}, the teachers' tasks are \[0, 1\]"):
            next(run.updates([Source(torch.randn(4, 2), task=task)], 1))
    assert not student.model.network.tasks, "refused before a network was called"
    with pytest.raises(ValueError, match="at least one teacher"):
        Distillation({}, student, device="cpu")
    alone = Distillation(bridge_model(), Student.of(bridge_model()), device="cpu")
    with pytest.raises(ValueError, match="of task 1"):
        next(alone.updates([Source(torch.randn(4, 2), task=1)], 1))


# Refusals and what cannot be passed.


def test_what_does_not_fit_is_refused_before_work() -> None:
    teacher = bridge_model()
    with pytest.raises(ValueError, match=r"the teacher ends at T = 80, the student at T = 1: "):
        Distillation(bridge_model(bridge=VE()), Student.of(teacher))
    sea = bridge_model(bridge=VE())
    with pytest.raises(ValueError, match=r"teacher 1 ends at T = 20, the student at T = 80"):
        Distillation({0: sea, 1: bridge_model(bridge=VE(T=20))}, Student.of(sea), fake=bridge_model(2))
    with pytest.raises(TypeError, match=r"the teacher must be a BridgeModel, got MLP; wrap it"):
        Distillation(mlp(0), Student.of(teacher))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Student, got BridgeModel; make one with Student\.of\(teacher\)"):
        Distillation(teacher, teacher)  # type: ignore[arg-type]
    run = Distillation(teacher, Student.of(teacher), device="cpu")
    with pytest.raises(ValueError, match="at least one update is needed, got 0"):
        run.updates([], 0)
    with pytest.raises(ValueError, match=r"ended before update 2 .* endless"):
        list(run.updates([torch.randn(4, 2)] * 7, 2))


def test_shared_networks_are_refused() -> None:
    teacher, free = bridge_model(), bridge_model(1)
    student = Student.of(teacher, noise_channels=0)
    own = Student(teacher, 2, 0, Brownian().grid(1))
    for arguments in ({"fake": teacher}, {"fake": student.model}):
        with pytest.raises(ValueError, match=r"must not share a network: copy\.deepcopy"):
            Distillation(teacher, student, **arguments, device="cpu")
    with pytest.raises(ValueError, match="must not share a network"):
        Distillation(teacher, own, fake=free, device="cpu")
    frozen_teacher = bridge_model(2).requires_grad_(False)
    with pytest.raises(ValueError, match="must not share a network"):
        Distillation(frozen_teacher, student, fake=frozen_teacher, device="cpu")
    assert not any(p.requires_grad for p in frozen_teacher.parameters()), "a refusal changes nothing"


@pytest.mark.parametrize("position", [0, 2, 5])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_source_does_not_reach_a_network(position: int, value: float) -> None:
    teacher = BridgeModel(CountedNetwork(), Brownian())
    student = Student.of(teacher)
    run = Distillation(teacher, student, settings=settings(), device="cpu")
    batches = [torch.randn(4, 2) for _ in range(6)]
    batches[position][1, 1] = value
    with pytest.raises(ValueError, match="xT holds NaN or infinite values"):
        list(run.updates(batches, 1))
    assert len(student.model.network.calls) == position
    assert run.update == 0


def test_there_is_no_way_in_for_a_clean_image() -> None:
    """Public entrances of a distillation and their parameters, all of them; and pairs are refused."""
    known = {
        Distillation.__init__: {"teacher", "student", "fake", "settings", "device"},
        Distillation.updates: {"sources", "total"},
        Student.of: {"teacher", "steps", "noise_channels", "channels", "input_layer", "tasks"},
        Student.forward: {"source", "generator"},
    }
    for entrance, names in known.items():
        assert set(inspect.signature(entrance).parameters) - {"self"} == names
    assert {f.name for f in fields(Source)} == {"xT", "mask", "label", "task"}
    assert {f.name for f in fields(DistillationSettings)} == {
        "generator",
        "fake",
        "fake_updates",
        "reuse",
        "weight",
        "normalise",
        "rollout",
        "loss",
    }
    teacher = bridge_model()
    run = Distillation(teacher, Student.of(teacher), device="cpu")
    with pytest.raises(TypeError, match="got tuple"):
        next(run.updates([(torch.zeros(4, 2), torch.zeros(4, 2))], 1))  # type: ignore[list-item]


# The plane, from end to end.


def moments(x: Tensor) -> Tensor:
    return torch.cat([x.mean(0), torch.cov(x.T).flatten()])


@pytest.mark.parametrize("conditional", [False, True])
def test_a_student_of_one_step_beats_its_teacher_at_one_step(conditional: bool) -> None:
    """In one step a teacher answers with the mean R xT; its student has the spread of x0 = R xT + z/2 as well."""
    coupling = RotatedNoisy(noise=0.5)
    torch.manual_seed(0)
    model = BridgeModel(MLP(2, 32, 2, conditional), Brownian(), conditional=conditional)
    training = TeacherTraining(model, Settings(4e-3, average=0.98), device="cpu")
    list(training.updates(Draws(coupling.draw, 128), 300))
    chosen = DistillationSettings(
        generator=Settings(2e-3, betas=(0.0, 0.999), average=0.95),
        fake=Settings(4e-3, betas=(0.0, 0.999), average=None),
    )
    run = Distillation(training.teacher, Student.of(training.teacher), settings=chosen, device="cpu")
    list(run.updates(Draws(coupling.sources, 128), 200))

    random = torch.Generator().manual_seed(9)
    xT, truth = coupling.sources(3000, random), moments(coupling.targets(3000, random))
    T = torch.ones(3000)
    with torch.no_grad():
        told = training.teacher(xT, T, xT) if conditional else training.teacher(xT, T)
        made = run.student(xT, generator=random)
    before, after = ((moments(x) - truth).norm().item() for x in (told, made))
    assert after < 0.5 * before, f"distance of mean and covariance to the data: {before:.3f} -> {after:.3f}"
    if conditional:  # which also keeps the partner: x0 - R xT is the noise and nothing else
        assert coupling.pairing_error(told, xT) < 0.15
        assert coupling.pairing_error(made, xT) == pytest.approx(0.5, abs=0.1)
