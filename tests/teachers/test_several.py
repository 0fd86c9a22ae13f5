"""The average of several teachers is one, and the barycentre's loss is the average's and the teachers' disagreement."""

import copy

import pytest
import torch

from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student, ibmd_loss
from ibmd_lite.model import DDBM, BridgeModel
from ibmd_lite.networks import MLP
from ibmd_lite.sampling import sample
from ibmd_lite.teachers.several import Average, average_teacher, barycentre_loss
from ibmd_lite.training import Draws, Settings

BRIDGE = Brownian(0.7)


def teacher(seed: int, conditional: bool = True, bridge: Brownian = BRIDGE) -> BridgeModel:
    torch.manual_seed(seed)
    network = MLP(2, width=16, conditional=conditional).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return BridgeModel(network, bridge, conditional=conditional, prediction=DDBM())


def batch(n: int = 500) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(3)
    x0, xT, noise = torch.randn(3, n, 2, generator=draws, dtype=torch.float64)
    return x0, xT, BRIDGE.draw_times(n, draws).double(), noise


@pytest.mark.parametrize("weights", [None, (0.25, 0.75), (1.0, 0.0)])
def test_the_average_of_the_answers(weights) -> None:
    teachers = [teacher(0), teacher(1)]
    x0, xT, t, _ = batch()
    shares = weights or (0.5, 0.5)
    expected = sum(w * one(x0, t, xT) for w, one in zip(shares, teachers, strict=True))
    torch.testing.assert_close(average_teacher(teachers, weights)(x0, t, xT), expected)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (0.1, 0.1, 0.8)])
def test_barycentre_is_average_and_disagreement(conditional, weights) -> None:
    teachers = [teacher(seed, conditional) for seed in range(3)]
    fake = teacher(7, conditional)
    x0, xT, t, noise = batch()
    mean = average_teacher(teachers, weights)
    found = barycentre_loss(mean, fake, x0, xT, t, noise=noise)
    of_average = ibmd_loss(mean, fake, x0, xT, t, noise=noise)
    xt = BRIDGE.sample(x0, xT, t, noise)
    given = (xT,) if conditional else ()
    centre = mean(xt, t, *given)
    apart = sum(w * (one(xt, t, *given) - centre).square().mean() for w, one in zip(weights, teachers, strict=True))
    assert apart > 1e-3
    torch.testing.assert_close(found.gap, of_average.gap + apart)
    torch.testing.assert_close(found.loss, of_average.loss + apart)


def test_its_gradient_is_the_sum_of_the_single_ones() -> None:
    teachers, fake = [teacher(0), teacher(1)], teacher(7)
    x0, xT, t, noise = batch()
    x0.requires_grad_()
    barycentre_loss(average_teacher(teachers, (0.3, 0.7)), fake, x0, xT, t, noise=noise).loss.backward()
    found, x0.grad = x0.grad, None
    (0.3 * ibmd_loss(teachers[0], fake, x0, xT, t, noise=noise).loss).backward()
    (0.7 * ibmd_loss(teachers[1], fake, x0, xT, t, noise=noise).loss).backward()
    torch.testing.assert_close(found, x0.grad)


def test_without_given_noise_all_teachers_see_the_same_states() -> None:
    x0, xT, t, _ = batch()
    torch.manual_seed(5)
    found = barycentre_loss(average_teacher([teacher(0), teacher(0)]), teacher(7), x0, xT, t)
    torch.manual_seed(5)
    alone = ibmd_loss(teacher(0), teacher(7), x0, xT, t)
    torch.testing.assert_close(found.loss, alone.loss)


def test_a_student_as_large_as_one_teacher() -> None:
    torch.manual_seed(0)
    parts = [BridgeModel(MLP(2, width=16), BRIDGE) for _ in range(2)]
    settings = DistillationSettings(generator=Settings(1e-3), fake=Settings(1e-3), loss=barycentre_loss)
    run = Distillation(
        average_teacher(parts),
        Student.of(parts[0]),
        fake=copy.deepcopy(parts[0]),
        settings=settings,
        device="cpu",
    )
    before = [p.clone() for part in parts for p in part.parameters()]
    records = list(run.updates(Draws(lambda n, g: torch.randn(n, 2, generator=g), 64), 2))
    assert len(records) == 2
    assert sum(p.numel() for p in run.student.parameters()) < 1.1 * sum(p.numel() for p in parts[0].parameters())
    assert all(
        torch.equal(old, new) for old, new in zip(before, (p for x in parts for p in x.parameters()), strict=True)
    )


def test_the_average_can_be_walked() -> None:
    source = torch.zeros(5, 2, dtype=torch.float64)
    assert sample(average_teacher([teacher(0), teacher(1)]), source, BRIDGE.grid(3)).nfe == 3


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"have one form, got .*Brownian\(eps=0.1"):
        average_teacher([teacher(0), teacher(1, bridge=Brownian(0.1))])
    with pytest.raises(ValueError, match="two networks or more, got 1"):
        average_teacher([teacher(0)])
    for weights in [(1.0,), (0.5, 0.6), (1.5, -0.5)]:
        with pytest.raises(ValueError, match="expected 2 weights that are not negative and add up to 1"):
            Average([MLP(2), MLP(2)], weights)
    with pytest.raises(TypeError, match=r"takes an average_teacher\(\[...\]\), got a teacher of one MLP"):
        barycentre_loss(teacher(0), teacher(1), *batch()[:3])
