"""The U-Net: shapes, independence of the image's size, refusals."""

import pytest
import torch
from torch import Tensor

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


@pytest.mark.parametrize("patch", [1, 2])
def test_the_inside_of_a_picture_does_not_know_how_large_the_picture_is(patch: int) -> None:
    network = _awake(patch=patch)
    picture = torch.randn(1, 3, 160, 160)
    crop = picture[:, :, 16:144, 16:144]
    whole, part = network(picture, _times(1))[:, :, 72:88, 72:88], network(crop, _times(1))[:, :, 56:72, 56:72]
    assert (whole - part).abs().max() < 1e-5 * whole.abs().max()


def test_time_and_partner_reach_the_output() -> None:
    network = _awake(conditional=True)
    image = torch.randn(2, 3, 8, 8)
    before = network(image, _times(2), image)
    assert not torch.allclose(before, network(image, _times(2) + 100, image))
    assert not torch.allclose(before, network(image, _times(2), image + 1))


def test_each_image_of_a_batch_stands_alone() -> None:
    network = _awake()
    images, times = torch.randn(3, 3, 8, 8), torch.tensor([1.0, 300.0, 900.0])
    together = network(images, times)
    alone = torch.cat([network(images[i : i + 1], times[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_runs_under_bfloat16() -> None:
    network = _awake()
    image = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image, _times(2))
    torch.testing.assert_close(output.float(), network(image, _times(2)), rtol=0.1, atol=0.1)


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
