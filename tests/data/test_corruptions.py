"""Super-resolution against Pillow and plain numpy."""

import numpy
import pytest
import torch
from PIL import Image

from ibmd_lite.data import SuperResolution


def test_bicubic_agrees_with_pillow() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 24, 32) * 2 - 1
    picture = Image.fromarray(image[0, 0].numpy())
    small = picture.resize((8, 6), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(numpy.array(small.resize((32, 24), Image.Resampling.BICUBIC)))
    torch.testing.assert_close(SuperResolution(4)(image)[0, 0], expected, atol=1e-5, rtol=0)


def test_pool_averages_squares() -> None:
    image = torch.rand(2, 3, 8, 12).numpy()
    averages = image.reshape(2, 3, 2, 4, 3, 4).mean(axis=(3, 5))
    expected = torch.from_numpy(averages.repeat(4, axis=2).repeat(4, axis=3))
    torch.testing.assert_close(SuperResolution(4, "pool")(torch.from_numpy(image)), expected)


@pytest.mark.parametrize("kind", ["bicubic", "pool"])
@pytest.mark.parametrize("factor", [2, 4])
def test_flat_images_stay_and_shapes_are_kept(kind: str, factor: int) -> None:
    image = torch.full((2, 3, 8, 16), 0.3)
    torch.testing.assert_close(SuperResolution(factor, kind)(image), image)  # type: ignore[arg-type]


def test_images_of_a_batch_stand_alone() -> None:
    images = torch.rand(3, 3, 16, 16)
    together = SuperResolution()(images)
    torch.testing.assert_close(together[1:2], SuperResolution()(images[1:2]))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 8\).*image\[None\]"):
        SuperResolution()(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match=r"10 x 8.*factor 4"):
        SuperResolution()(torch.zeros(1, 3, 10, 8))
    with pytest.raises(ValueError, match="'nearest'; expected 'bicubic' or 'pool'"):
        SuperResolution(kind="nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="factor is 1"):
        SuperResolution(1)
