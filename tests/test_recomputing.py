"""Recomputed layers: the same gradients, less memory, the same weights; also where networks are frozen and copied."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws
from ibmd_lite.training.recomputing import recompute

STAGES = r"(down|up)\.\d+"


def network(layers: str | None = STAGES) -> UNet:
    torch.manual_seed(0)
    made = UNet(width=8, multipliers=(1, 2))
    for parameter in made.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return made if layers is None else recompute(made, layers)


def held(call) -> int:
    """Bytes that autograd keeps for the backward pass, weights aside."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if not isinstance(x, nn.Parameter):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        call()
    return sum(kept.values())


def run(layers: str | None) -> tuple[Distillation, list[float]]:
    teacher = BridgeModel(network(layers), Brownian(0.1))
    settings = DistillationSettings(fake_updates=2)
    run = Distillation(teacher, Student.of(teacher), settings=settings, device="cpu")
    sources = Draws(lambda n, generator: torch.randn(n, 3, 8, 8, generator=generator), 2)
    return run, [record.loss for record in run.updates(sources, 3)]


def test_gradients_of_weights_and_input_are_the_same() -> None:
    xt, time = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    found = []
    for one in (network(None), network()):
        point = xt.clone().requires_grad_()
        one(point, time).square().sum().backward()
        found.append([point.grad, *(parameter.grad for parameter in one.parameters())])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-6)


def test_less_is_held() -> None:
    xt, time = torch.randn(2, 3, 32, 32), torch.full((2,), 500.0)
    plain, recomputed = (held(lambda one=one: one(xt, time)) for one in (network(None), network()))
    assert recomputed < 0.5 * plain


def test_distillation_goes_as_without() -> None:
    """The fake is frozen while the loss is computed and not when its layers are computed again: no gradient leaks."""
    (plain, losses), (recomputed, again) = run(None), run(STAGES)
    assert losses == pytest.approx(again, rel=1e-3)
    for one, other in zip(plain.student.parameters(), recomputed.student.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in recomputed.fake.parameters())
    for made in (
        recomputed.fake.network,
        recomputed.student.model.network,
        recomputed.student_learner.module.model.network,
    ):
        assert made.down[0].recomputed


def test_a_copy_has_its_own_weights_under_the_same_names() -> None:
    one = network()
    other = copy.deepcopy(one)
    assert list(one.state_dict()) == list(network(None).state_dict())
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
    xt, time = torch.randn(1, 3, 8, 8), torch.zeros(1)
    assert torch.equal(other(xt, time), network(None)(xt, time))
    assert isinstance(one.down[0], type(network(None).down[0]))


def test_twice_is_once() -> None:
    assert type(recompute(network(), STAGES).down[0]) is type(network().down[0])


@pytest.mark.parametrize(
    ("layers", "message"), [("middle", "no layer is called 'middle'"), ("", "no layer"), (r"down.*", "inside them")]
)
def test_layers_that_there_are_not_are_refused(layers: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(layers)
