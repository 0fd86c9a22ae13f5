"""The U-Net: shapes, independence of the image's size, attention, refusals."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.networks import UNet


def _awake(**arguments: object) -> UNet:
    """A network whose zero layers have been filled, so that everything in it shows in the output."""
    torch.manual_seed(0)
    network = UNet(**{"width": 8, "multipliers": (1, 2), **arguments})  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return network.eval()


def _times(batch: int) -> Tensor:
    return torch.full((batch,), 500.0)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (12, 20)])
def test_output_has_the_shape_of_the_image(patch: int, conditional: bool, size: tuple[int, int]) -> None:
    network = UNet(3, 8, (1, 2), patch=patch, conditional=conditional)
    image = torch.randn(2, 3, *size)
    output = network(image, _times(2), image if conditional else None)
    assert output.shape == image.shape
    assert not output.any(), "a fresh network returns 0"


def test_an_optional_condition_is_zeros_where_it_is_not_given() -> None:
    network, strict = (_awake(conditional=conditional) for conditional in ("optional", True))
    xt, xT = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network(xt, _times(2), xT), strict(xt, _times(2), xT))
    assert torch.equal(network(xt, _times(2)), strict(xt, _times(2), torch.zeros_like(xT)))
    assert not torch.equal(network(xt, _times(2)), network(xt, _times(2), xT))


@pytest.mark.parametrize("patch", [1, 2])
def test_the_inside_of_a_picture_does_not_know_how_large_the_picture_is(patch: int) -> None:
    network = _awake(patch=patch)
    picture = torch.randn(1, 3, 160, 160)
    crop = picture[:, :, 16:144, 16:144]
    whole, part = network(picture, _times(1))[:, :, 72:88, 72:88], network(crop, _times(1))[:, :, 56:72, 56:72]
    assert (whole - part).abs().max() < 1e-5 * whole.abs().max()


@pytest.mark.parametrize("attention", [False, True])
def test_a_far_pixel_is_seen_with_attention_alone(attention: bool) -> None:
    network = _awake(width=16, attention=attention)
    picture = torch.randn(1, 3, 96, 64)
    changed = picture.clone()
    changed[:, :, :8, :8] += 1
    far = (network(changed, _times(1)) - network(picture, _times(1)))[:, :, -8:, -8:].abs().max()
    assert far > 1e-4 if attention else far == 0


def test_attention_is_softmax_of_products_in_heads_of_32() -> None:
    torch.manual_seed(0)
    layer = UNet(width=64, multipliers=(1,), attention=True).attention.double()
    nn.init.normal_(layer.outputs.weight)
    h = torch.randn(2, 64, 3, 5, dtype=torch.float64)
    pixels = functional.layer_norm(h.permute(0, 2, 3, 1).reshape(2, 15, 64), (64,))
    q, k, v = layer.inputs(pixels).split(64, dim=2)
    heads = []
    for part in (slice(32), slice(32, 64)):
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 32**0.5).softmax(2)
        heads.append(weights @ v[..., part])
    expected = h + layer.outputs(torch.cat(heads, 2)).reshape(2, 3, 5, 64).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(h), expected)


def test_a_network_without_attention_is_what_it_was() -> None:
    torch.manual_seed(0)
    plain = UNet(width=16, multipliers=(1, 2))
    torch.manual_seed(0)
    attentive = UNet(width=16, multipliers=(1, 2), attention=True)
    extra = [name for name in attentive.state_dict() if name not in plain.state_dict()]
    assert {name.split(".")[0] for name in extra} == {"attention"}
    for name, value in plain.state_dict().items():
        assert torch.equal(attentive.state_dict()[name], value), "the attention's weights are drawn last"
    trained = _awake(width=16)
    assert attentive.load_state_dict(trained.state_dict(), strict=False).missing_keys == extra
    image = torch.randn(2, 3, 8, 12)
    assert torch.equal(attentive(image, _times(2)), trained(image, _times(2))), "it starts without a say"


def test_gradients_reach_the_attention_after_the_first_updates() -> None:
    torch.manual_seed(0)
    network = UNet(width=16, multipliers=(1, 2), attention=True)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    image = torch.randn(4, 3, 8, 8)
    assert not network(image, _times(4)).any(), "a fresh network returns 0"
    for _ in range(3):  # first the output layer leaves zero, then the attention's own, then what is behind it learns
        optimiser.zero_grad()
        (network(image, _times(4)) - image).square().mean().backward()
        optimiser.step()
    reached = {name for name, parameter in network.attention.named_parameters() if parameter.grad.any()}
    assert reached == {"norm.weight", "norm.bias", "inputs.weight", "inputs.bias", "outputs.weight", "outputs.bias"}


def test_time_and_partner_reach_the_output() -> None:
    network = _awake(conditional=True)
    image = torch.randn(2, 3, 8, 8)
    before = network(image, _times(2), image)
    assert not torch.allclose(before, network(image, _times(2) + 100, image))
    assert not torch.allclose(before, network(image, _times(2), image + 1))


@pytest.mark.parametrize("attention", [False, True])
def test_each_image_of_a_batch_stands_alone(attention: bool) -> None:
    network = _awake(width=16, attention=attention)
    images, times = torch.randn(3, 3, 8, 8), torch.tensor([1.0, 300.0, 900.0])
    together = network(images, times)
    alone = torch.cat([network(images[i : i + 1], times[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("attention", [False, True])
def test_runs_under_bfloat16_and_in_double(attention: bool) -> None:
    network = _awake(width=16, attention=attention)
    image = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image, _times(2))
    single = network(image, _times(2))
    torch.testing.assert_close(output.float(), single, rtol=0.1, atol=0.1)
    double = network.double()(image.double(), _times(2).double())
    torch.testing.assert_close(double, single.double(), rtol=1e-4, atol=1e-4)


def test_refusals() -> None:
    image = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="conditional=False"):
        _awake()(image, _times(2), image)
    with pytest.raises(ValueError, match="xT is missing"):
        _awake(conditional=True)(image, _times(2))
    with pytest.raises(ValueError, match="10 x 8; expected height and width divisible by 4"):
        _awake(patch=2)(torch.zeros(2, 3, 10, 8), _times(2))
    with pytest.raises(ValueError, match="multipliers"):
        UNet(multipliers=())
    with pytest.raises(ValueError, match="width is 9"):
        UNet(width=9)
    with pytest.raises(ValueError, match="the coarsest level has 48 features; attention expects a multiple of 32"):
        UNet(width=48, multipliers=(2, 1), attention=True)
