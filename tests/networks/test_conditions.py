"""Labels and tasks: they reach the output, start without a say, and what does not fit is refused."""

import re

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.bridges import Brownian
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import MLP, Conditions, UNet

KINDS = {"label": "labels", "task": "tasks"}


def make(kind: type[nn.Module], **counts: int) -> tuple[nn.Module, Tensor]:
    """A network whose zero layers are filled, apart from the tables, and an input for it."""
    torch.manual_seed(0)
    small = {"width": 8, "multipliers": (1, 2)} if kind is UNet else {"width": 16}
    network = kind(**small, **counts)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not parameter.any() and "conditions" not in name:
                parameter.normal_(0, 0.1)
    return network, torch.randn(4, 3, 8, 8) if kind is UNet else torch.randn(4, 2)


@pytest.mark.parametrize("kind", [MLP, UNet])
@pytest.mark.parametrize("name", KINDS)
def test_a_condition_reaches_the_output_once_it_is_trained(kind: type[nn.Module], name: str) -> None:
    network, x = make(kind, **{KINDS[name]: 3})
    time = torch.full((4,), 300.0)
    which = torch.tensor([0, 1, 2, 1])
    before = network(x, time, **{name: which})
    assert torch.equal(before, network(x, time, **{name: torch.zeros(4, dtype=torch.long)})), "tables start at zero"
    before.square().sum().backward()
    table = network.conditions.tables[name].weight
    assert bool((table.grad.abs().sum(1) > 0).all()), "and can leave it"
    with torch.no_grad():
        table[1] = 1
    changed = (network(x, time, **{name: which}) - before).flatten(1).abs().sum(1) > 1e-6
    assert changed.tolist() == [False, True, False, True], "each element of the batch has its own"


@pytest.mark.parametrize("kind", [MLP, UNet])
def test_trained_weights_go_on_with_tables(kind: type[nn.Module]) -> None:
    plain, x = make(kind)
    wide, _ = make(kind, labels=2, tasks=3)
    found = wide.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys == ["conditions.tables.label.weight", "conditions.tables.task.weight"]
    time, which = torch.full((4,), 300.0), torch.tensor([0, 1, 1, 0])
    assert torch.equal(wide(x, time, label=which, task=which + 1), plain(x, time))


def test_a_bridge_model_hands_on_label_and_task() -> None:
    network, xT = make(MLP, labels=2, tasks=3)
    nn.init.normal_(network.conditions.tables["task"].weight)
    model = BridgeModel(network, Brownian())
    t, label = torch.rand(4), torch.tensor([0, 1, 1, 0])
    answers = [model(xT, t, **model.given(Source(xT, label=label, task=task))) for task in (0, 2)]
    assert not torch.allclose(*answers)


@pytest.mark.parametrize("kind", [MLP, UNet])
def test_refusals(kind: type[nn.Module]) -> None:
    plain, x = make(kind)
    network, _ = make(kind, tasks=3)
    time, task = torch.zeros(4), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match="task is given, but the network was made with tasks=0"):
        plain(x, time, task=task)
    with pytest.raises(ValueError, match="task is missing, but the network was made with tasks=3"):
        network(x, time)
    with pytest.raises(ValueError, match="label is given, but the network was made with labels=0"):
        network(x, time, task=task, label=task)
    for wrong in (task.float(), task[:, None], task[:2]):
        with pytest.raises(ValueError, match=r"expected \(4,\), one whole number each"):
            network(x, time, task=wrong)
    for wrong in (task + 1, task - 1):
        with pytest.raises(ValueError, match=re.escape("the network knows 0 to 2")):
            network(x, time, task=wrong)
    with pytest.raises(ValueError, match="tasks is -1"):
        Conditions(8, tasks=-1)
