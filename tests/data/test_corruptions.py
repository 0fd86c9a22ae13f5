"""Corruptions against Pillow, scipy, scikit-image and plain numpy."""

import io

import imageio.v3
import numpy
import pytest
import scipy.fft
import scipy.ndimage
import skimage.filters
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ibmd_lite.data import JPEG, Blur, Corruption, Photographs, Sketch, SuperResolution

ALL: list[Corruption] = [SuperResolution(), SuperResolution(kind="pool"), JPEG(5), Blur(1.5), Sketch()]

# The luminance table of the JPEG standard (ITU T.81, table K.1), for quality 50.
LUMINANCE = numpy.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


def photographs(n: int = 4, size: int = 32) -> torch.Tensor:
    return Photographs(size).crops(n, torch.Generator().manual_seed(0))


def to_bytes(images: torch.Tensor) -> numpy.ndarray:
    """Of one image, (height, width, channels)."""
    return numpy.round((images.permute(1, 2, 0).numpy().astype("float64") + 1) * 127.5).astype("uint8")


@pytest.mark.parametrize("corruption", ALL, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_all_are_called_alike_and_keep_shape_and_type(corruption: Corruption, channels: int) -> None:
    x0 = photographs()[:, :channels, :, :24]
    xT = corruption(x0, torch.Generator())
    assert isinstance(xT, torch.Tensor)
    assert xT.shape == x0.shape
    assert xT.dtype == x0.dtype
    assert torch.equal(xT, corruption(x0)), "nothing is drawn"
    assert not torch.equal(xT, x0)
    torch.testing.assert_close(xT[1:2], corruption(x0[1:2])), "images of a batch stand alone"
    doubles = corruption(x0.double())
    assert isinstance(doubles, torch.Tensor)
    assert doubles.dtype == torch.float64
    torch.testing.assert_close(doubles.float(), xT, atol=2e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_a_gpu_computes_the_same(corruption: Corruption) -> None:
    x0 = photographs()
    xT = corruption(x0.cuda())
    assert isinstance(xT, torch.Tensor)
    assert xT.is_cuda
    torch.testing.assert_close(xT.cpu(), corruption(x0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("corruption", [SuperResolution(), SuperResolution(kind="pool"), Blur(1.5)], ids=repr)
def test_nothing_is_moved_to_another_device(corruption: Corruption) -> None:
    xT = corruption(torch.zeros(2, 3, 16, 16, device="meta"))
    assert isinstance(xT, torch.Tensor)
    assert xT.device.type == "meta"


# Super-resolution


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


def test_repeat_shrinks_with_the_cubic_filter_and_repeats_pixels() -> None:
    """Away from the border the small image is a sum of 16 taps an axis, as Keys wrote them with a = -1/2."""
    distance = numpy.abs((numpy.arange(16) - 7.5) / 4)
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = numpy.where(distance <= 1, near, far)
    taps /= taps.sum()
    image = torch.rand(1, 1, 24, 24, dtype=torch.float64)
    found = SuperResolution(4, "repeat")(image)[0, 0].numpy()
    for row, column in ((2, 2), (3, 2)):
        rows, columns = (slice(4 * k - 6, 4 * k + 10) for k in (row, column))
        expected = taps @ image[0, 0, rows, columns].numpy() @ taps
        square = found[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        numpy.testing.assert_allclose(square, numpy.full((4, 4), expected), atol=1e-12)


@pytest.mark.parametrize(
    "corruption",
    [SuperResolution(2), SuperResolution(2, "pool"), SuperResolution(2, "repeat"), SuperResolution(), Blur(3.0)],
)
def test_flat_images_stay(corruption: Corruption) -> None:
    image = torch.full((2, 3, 8, 16), 0.3)
    torch.testing.assert_close(corruption(image), image)


# JPEG


@pytest.mark.parametrize("quality", [5, 10, 50, 90])
def test_grey_jpeg_is_the_quantised_cosine_transform(quality: int) -> None:
    image = photographs(1, 64)[:, 1:2]
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    table = numpy.clip(numpy.floor((LUMINANCE * scale + 50) / 100), 1, 255)
    blocks = to_bytes(image[0])[..., 0].reshape(8, 8, 8, 8).swapaxes(1, 2) - 128.0
    kept = numpy.round(scipy.fft.dctn(blocks, axes=(2, 3), norm="ortho") / table) * table
    expected = numpy.clip(scipy.fft.idctn(kept, axes=(2, 3), norm="ortho") + 128, 0, 255)
    found = ((JPEG(quality)(image)[0, 0].numpy() + 1) * 127.5).reshape(8, 8, 8, 8).swapaxes(1, 2)
    # The encoder's transform is in integers: a pixel may be off by one, and a coefficient on the edge of a step
    # may fall to its other side, which changes its block. The next quality is wrong for a tenth or more.
    difference = abs(found - expected)
    assert (difference > 1.5).mean() < 0.06
    assert difference.mean() < 0.5


@pytest.mark.parametrize("threads", [1, 3])
def test_colour_jpegs_are_the_files_that_another_program_writes(threads: int) -> None:
    before = torch.get_num_threads()
    x0 = photographs(5)[..., :20]
    torch.set_num_threads(threads)
    try:
        found = JPEG(10)(x0)
    finally:
        torch.set_num_threads(before)
    for image, corrupted in zip(x0, found, strict=True):
        file = io.BytesIO()
        Image.fromarray(to_bytes(image), "RGB").save(file, format="JPEG", quality=10, subsampling="4:2:0")
        assert numpy.array_equal(imageio.v3.imread(file.getvalue()), to_bytes(corrupted))
        assert file.getvalue()[:2] == b"\xff\xd8"


def test_jpeg_clips_as_a_file_does() -> None:
    x0 = torch.tensor([-1.3, 1.3]).repeat_interleave(8).expand(1, 1, 8, 16)
    torch.testing.assert_close(JPEG(100)(x0), x0.clamp(-1, 1), atol=0.02, rtol=0)


@settings(deadline=None, max_examples=25)
@given(
    quality=st.integers(1, 100),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    level=st.floats(-1, 1),
)
def test_a_flat_image_of_any_size_stays_nearly_flat(
    quality: int, height: int, width: int, channels: int, level: float
) -> None:
    x0 = torch.full((2, channels, height, width), level)
    xT = JPEG(quality)(x0)
    assert xT.shape == x0.shape
    assert float(xT.std(dim=(0, 2, 3)).max() if xT[0, 0].numel() > 1 else 0) < 1e-6
    # One step of the mean's quantiser, at most 255/8 levels in brightness and about as much in colour.
    assert float((xT - x0).abs().max()) <= (0.5 if quality < 50 else 0.08)


# Blur


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.7])
def test_blur_agrees_with_scipy(sigma: float) -> None:
    x0 = photographs()[..., :20]  # the widest filter is longer than the image
    expected = scipy.ndimage.gaussian_filter(x0.numpy(), sigma, axes=(2, 3), mode="nearest", truncate=4.0)
    torch.testing.assert_close(Blur(sigma)(x0), torch.from_numpy(expected), atol=1e-5, rtol=0)


# Sketch


@pytest.mark.parametrize(("sigma", "strength"), [(0.7, 4.0), (1.5, 9.0)])
def test_sketch_agrees_with_scikit_image(sigma: float, strength: float) -> None:
    x0 = photographs()
    found = Sketch(sigma, strength)(x0).numpy()
    for image, sketch in zip(x0.double().numpy(), found, strict=True):
        brightness = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        smooth = scipy.ndimage.gaussian_filter(brightness, sigma, mode="nearest", truncate=4.0)
        # Its filters have the weights 1, 2, 1 over 4 and a step of two pixels, and it divides by sqrt(2).
        slope = numpy.hypot(skimage.filters.sobel_h(smooth), skimage.filters.sobel_v(smooth)) / 2
        inside = (slice(1, -1), slice(1, -1))
        expected = 1 - 2 * numpy.tanh(strength * slope)
        assert numpy.abs(sketch - expected)[(slice(None), *inside)].max() < 1e-5


def test_a_sketch_is_dark_at_edges_white_elsewhere_and_blind_to_sign_and_colour() -> None:
    x0 = torch.full((1, 3, 16, 16), -0.5)
    x0[..., 8:] = 0.5
    xT = Sketch()(x0)
    torch.testing.assert_close(xT[..., :4], torch.ones(1, 3, 16, 4))
    assert float(xT[..., 7:9].max()) < -0.5
    torch.testing.assert_close(Sketch()(-x0), xT)
    assert torch.equal(xT[:, 0], xT[:, 2])
    red = torch.full((1, 3, 8, 8), -1.0)
    red[:, 0] = 1
    torch.testing.assert_close(Sketch()(red), torch.ones(1, 3, 8, 8))


# Refusals


@pytest.mark.parametrize("corruption", ALL, ids=repr)
def test_what_is_no_batch_of_images_is_refused(corruption: Corruption) -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 8\).*image\[None\]"):
        corruption(torch.zeros(3, 8, 8))
    with pytest.raises(TypeError, match=r"torch.uint8.*x0.float\(\) / 127.5 - 1"):
        corruption(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"10 x 8.*factor 4"):
        SuperResolution()(torch.zeros(1, 3, 10, 8))
    with pytest.raises(ValueError, match="'nearest'; expected 'bicubic', 'pool' or 'repeat'"):
        SuperResolution(kind="nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="factor is 1"):
        SuperResolution(1)
    for quality in (0, 101, 7.5):
        with pytest.raises(ValueError, match=f"quality is {quality}; expected an integer from 1 to 100"):
            JPEG(quality)  # type: ignore[arg-type]
    for sigma in (0.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"sigma is {sigma}"):
            Blur(sigma)
    with pytest.raises(ValueError, match="strength is -1"):
        Sketch(strength=-1)


@pytest.mark.parametrize("corruption", [JPEG(), Sketch()], ids=repr)
def test_other_than_grey_and_colour_is_refused(corruption: Corruption) -> None:
    with pytest.raises(ValueError, match="4 channels; expected 1"):
        corruption(torch.zeros(1, 4, 8, 8))


def test_jpeg_refuses_what_would_be_silently_black_or_white() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 255; expected images in \[-1, 1\]"):
        JPEG()(torch.linspace(0, 255, 64).view(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"nan; expected"):
        JPEG()(torch.full((1, 1, 8, 8), float("nan")))
