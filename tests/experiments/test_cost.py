"""Predicted cost against hand formulas and against what a real update does."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from ibmd_lite.bridges import Brownian
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.evaluation import flops
from ibmd_lite.experiments.cost import A100, Accelerator, Memory, Passes, Setup, peak_bytes
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws
from ibmd_lite.training.recomputing import recompute

SHAPE = (3, 16, 16)
STAGES = r"(down|up)\.\d+"
SMALL = {"width": 8, "multipliers": (1, 2)}


class Convolution(nn.Module):
    """A network of one layer."""

    def __init__(self, inputs: int = 3) -> None:
        super().__init__()
        self.input_layer = nn.Conv2d(inputs, 3, 3, padding=1)

    def forward(self, xt: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.input_layer(xt)


def convolution(inputs: int, outputs: int, side: int, kernel: int) -> int:
    """Multiplications and additions of a convolution with outputs of side x side."""
    return 2 * inputs * outputs * kernel**2 * side**2


def test_a_convolution_by_hand() -> None:
    """Forward, once more for the weights' gradient, once more for the input's; the first layer's input needs none."""
    one = convolution(3, 3, 16, 3)
    assert Passes.counted(Convolution(), SHAPE) == Passes(forward=one, training=2 * one, through=2 * one)


def test_the_small_network_by_hand() -> None:
    """width 8, multipliers (1, 2), one block a level: 16 x 16 above, 8 x 8 below."""
    fine, coarse, embedded = 8, 16, 32
    blocks = 2 * 2 * (convolution(fine, fine, 16, 3) + convolution(coarse, coarse, 8, 3))
    times = 2 * fine * embedded + 2 * (2 * embedded * 2 * fine + 2 * embedded * 2 * coarse)
    between = convolution(fine, coarse, 8, 3) + convolution(coarse, fine, 8, 1)
    first, last = convolution(3, fine, 16, 3), convolution(fine, 3, 16, 3)
    forward = first + blocks + times + between + last
    passes = Passes.counted(UNet(**SMALL), SHAPE)
    assert passes.forward == forward
    assert passes.training == 3 * forward - first - 2 * fine * embedded  # neither image nor time wants a gradient
    assert passes.through == 2 * forward - times  # what the time becomes does not depend on the image


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_by_hand(device: str) -> None:
    """8 x 8 pixels of 32 features: two products of pixels with pixels forward, twice as many for each gradient."""
    with torch.device(device):
        networks = [UNet(width=16, multipliers=(1, 2), attention=attention) for attention in (False, True)]
    without, seeing = (Passes.counted(network, SHAPE) for network in networks)
    linear = 2 * 64 * 32 * (3 * 32 + 32)
    product = 2 * (2 * 64 * 64 * 32)
    assert seeing.forward - without.forward == linear + product
    assert seeing.training - without.training == 3 * (linear + product)
    assert seeing.through - without.through == 2 * linear + 3 * product


def test_counting_needs_no_memory_and_changes_nothing() -> None:
    with torch.device("meta"):
        nowhere = UNet(**SMALL)
    here = UNet(**SMALL)
    assert Passes.counted(nowhere, SHAPE) == Passes.counted(here, SHAPE)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in here.parameters())


def test_recomputed_layers_are_counted_as_often_as_they_run() -> None:
    """Of a block's two convolutions only the first runs again: what the second made is not needed for the gradient."""
    plain, again = Passes.counted(UNet(**SMALL), SHAPE), Passes.counted(recompute(UNet(**SMALL), STAGES), SHAPE)
    first = convolution(8, 8, 16, 3) + convolution(16, 16, 8, 3)
    modulation = 2 * 32 * 2 * 8 + 2 * 32 * 2 * 16
    extra = 2 * (first + modulation)
    assert again == Passes(plain.forward, plain.training + extra, plain.through + extra)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("sizes", [{}, {"steps": 2}, {"fake_updates": 5, "reuse": 2}, {"fake_updates": 1}], ids=str)
def test_a_setup_makes_as_many_operations_as_a_real_update(sizes: dict[str, int], conditional: bool) -> None:
    torch.manual_seed(0)
    network = UNet(**SMALL, conditional=conditional)
    setup = Setup.of(network, SHAPE, conditional=conditional, batch=4, updates=1, **sizes)
    teacher = BridgeModel(network, Brownian(0.1), conditional=conditional)
    settings = DistillationSettings(fake_updates=setup.fake_updates, reuse=setup.reuse)
    student = Student.of(teacher, steps=setup.steps)
    run = Distillation(teacher, student, settings=settings, device="cpu")
    updates = run.updates(Draws(lambda n, generator: torch.zeros(n, *SHAPE), 4), 1)
    assert flops(lambda: next(updates)) == pytest.approx(setup.iteration, rel=1e-6)


def test_a_teachers_update_is_its_training_pass() -> None:
    network = UNet(**SMALL)
    run = TeacherTraining(BridgeModel(network, Brownian(0.1)), device="cpu")
    updates = run.updates(Draws(lambda n, generator: (torch.zeros(n, *SHAPE),) * 2, 4), 1)
    assert flops(lambda: next(updates)) == 4 * Passes.counted(network, SHAPE).training


def test_hours_by_hand() -> None:
    """1000 updates of 2 (5 (1 + 3) + 3 + 2 + 2) = 54 operations on four devices of 10 a second at a half."""
    passes = Passes(forward=1, training=3, through=2)
    setup = Setup(passes, passes, batch=2, updates=1000)
    assert (setup.fake_update, setup.generator_update, setup.iteration) == (8, 14, 54)
    accelerator = Accelerator("four", peak=10.0, utilisation=0.5, count=4)
    cost = setup.on(accelerator)
    assert cost.operations == 54_000
    assert cost.hours == pytest.approx(54_000 / 20 / 3600)
    assert cost.gpu_hours == pytest.approx(4 * cost.hours)
    assert accelerator.fitted(54_000, cost.seconds) == accelerator
    assert A100.speed == pytest.approx(93.6e12)


def test_memory_by_hand() -> None:
    """Three tensors of 400 bytes, two at a time; what was there before does not count, nor does a view."""
    before = torch.zeros(100)

    def call() -> None:
        first = before + 1
        second = first.view(10, 10) + 1
        del first
        second + 1

    assert peak_bytes(call) == 800
    assert peak_bytes(lambda: before.view(10, 10).t()) == 0


@pytest.mark.parametrize("layers", [None, STAGES])
def test_memory_is_told_without_taking_it(layers: str | None) -> None:
    found = []
    for device in ("meta", "cpu"):
        with torch.device(device):
            network = UNet(**SMALL)
            xt, time = torch.zeros(2, *SHAPE), torch.zeros(2)
        if layers is not None:
            recompute(network, layers)

        def call(network=network, xt=xt, time=time) -> None:
            network(xt, time).sum().backward()

        found.append(peak_bytes(call))
    assert found[0] == pytest.approx(found[1], rel=0.05)


@pytest.mark.parametrize("layers", [None, STAGES])
def test_memory_is_that_of_real_updates(layers: str | None) -> None:
    """Two updates, because Adam's moments are made by the first; a run holds a few images besides."""
    batch = 4 * 4 * math.prod(SHAPE)
    network = UNet(**SMALL)
    if layers is not None:
        recompute(network, layers)
    told = Memory.of(network, SHAPE, batch=4)
    one = sum(parameter.nbytes for parameter in network.parameters())
    teacher = BridgeModel(network, Brownian(0.1))
    student = Student.of(teacher)
    before = 2 * one + 2 * sum(parameter.nbytes for parameter in student.parameters())
    run = Distillation(teacher, student, settings=DistillationSettings(fake_updates=1), device="cpu")
    zeros = Draws(lambda n, generator: torch.zeros(n, *SHAPE), 4)
    found = before + peak_bytes(lambda: list(run.updates(zeros, 2)))
    assert told.distillation == pytest.approx(found, abs=8 * batch)
    training = TeacherTraining(BridgeModel(network.requires_grad_(True), Brownian(0.1)), device="cpu")
    pairs = Draws(lambda n, generator: (torch.zeros(n, *SHAPE),) * 2, 4)
    found = 2 * one + peak_bytes(lambda: list(training.updates(pairs, 2)))
    assert told.teacher == pytest.approx(found, abs=8 * batch)


def test_attention_keeps_no_square_of_the_pixels() -> None:
    """On the meta device as on a real one: 1024 pixels would need 4 MiB for which sees which."""
    found = []
    for device in ("meta", "cpu"):
        q = torch.zeros(1, 1, 1024, 8, device=device, requires_grad=True)
        found.append(peak_bytes(lambda q=q: functional.scaled_dot_product_attention(q, q, q).sum().backward()))
    assert max(found) < 2**19
    assert found[0] == pytest.approx(found[1], rel=0.2)


REFUSED = {
    "no batch": (lambda: Setup(*[Passes(1, 3, 2)] * 2, batch=0, updates=1), "batch is 0"),
    "no images": (lambda: Memory.of(UNet(**SMALL), SHAPE, batch=0), "batch is 0"),
    "no updates": (lambda: Setup(*[Passes(1, 3, 2)] * 2, batch=1, updates=1.5), "updates is 1.5"),
    "no peak": (lambda: Accelerator("none", peak=0.0), "peak is 0.0"),
    "above its peak": (lambda: A100.fitted(1e15, 1.0), "utilisation 3.2"),
    "frozen": (lambda: Passes.counted(UNet(**SMALL).requires_grad_(False), SHAPE), "the network is frozen"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
