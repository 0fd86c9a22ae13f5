"""The perceptron: shapes, the role of time and xT, refusals."""

import pytest
import torch

from ibmd_lite.networks import MLP


@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("conditional", [False, True])
def test_output_has_the_shape_of_a_point(dimension: int, conditional: bool) -> None:
    network = MLP(dimension, width=16, depth=2, conditional=conditional)
    x = torch.randn(7, dimension)
    output = network(x, torch.rand(7) * 1000, x if conditional else None)
    assert output.shape == (7, dimension)
    assert torch.equal(output, torch.zeros_like(output)), "a fresh network returns 0"


def test_time_and_partner_reach_the_output() -> None:
    torch.manual_seed(0)
    network = MLP(2, width=16, conditional=True)
    torch.nn.init.normal_(network.output_layer.weight)
    x, time = torch.randn(4, 2), torch.full((4,), 300.0)
    before = network(x, time, x)
    assert not torch.allclose(before, network(x, time + 100, x))
    assert not torch.allclose(before, network(x, time, x + 1))


def test_xt_stands_before_xT() -> None:
    network = MLP(2, width=16, conditional=True)
    torch.nn.init.normal_(network.output_layer.weight)
    with torch.no_grad():
        network.input_layer.weight[:, 2:] = 0
    x, time = torch.randn(4, 2), torch.zeros(4)
    assert torch.equal(network(x, time, x), network(x, time, x + 1))


def test_refusals() -> None:
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="conditional=False"):
        MLP(2, width=16)(x, torch.zeros(3), x)
    with pytest.raises(ValueError, match="xT is missing"):
        MLP(2, width=16, conditional=True)(x, torch.zeros(3))
    with pytest.raises(ValueError, match=r"\(3, 1\).*time\[:, 0\]"):
        MLP(2, width=16)(x, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="width is 15"):
        MLP(2, width=15)
    with pytest.raises(ValueError, match="depth is 0"):
        MLP(2, depth=0)
