"""Holes where and as large as they say, noise that is noise, and known pixels that nobody touches."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ibmd_lite.data import BrushStrokes, CentreHole, Inpainting, Photographs
from ibmd_lite.model import Source


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photographs(n: int = 6, size: int = 32) -> torch.Tensor:
    return Photographs(size).crops(n, generator(9))


def mask_of(source: Source) -> torch.Tensor:
    assert source.mask is not None
    return source.mask


@pytest.mark.parametrize("hole", [CentreHole(), BrushStrokes()], ids=repr)
def test_known_pixels_stay_and_the_hole_is_noise_that_knows_nothing_of_them(hole) -> None:
    x0 = photographs(200)
    source = Inpainting(hole)(x0, generator())
    mask = mask_of(source)
    assert mask.shape == (200, 1, 32, 32)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    known = (1 - mask).bool().expand_as(x0)
    assert torch.equal(source.xT[known], x0[known])
    noise = source.xT[~known]
    error = len(noise) ** -0.5
    assert abs(float(noise.mean())) < 4 * error
    assert abs(float(noise.square().mean()) - 1) < 4 * 2**0.5 * error
    assert abs(float(noise.pow(4).mean()) - 3) < 4 * 96**0.5 * error
    assert abs(float((noise * x0[~known]).mean())) < 4 * error
    # No channel, image or place repeats another's noise; a few numbers of float32 coincide.
    assert len(noise.unique()) > 0.99 * len(noise)


@pytest.mark.parametrize("hole", [CentreHole(), BrushStrokes()], ids=repr)
def test_a_seed_repeats_the_draw_and_a_second_call_does_not(hole) -> None:
    x0, corruption = photographs(), Inpainting(hole)
    one, again, other = (corruption(x0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.xT, again.xT)
    assert torch.equal(mask_of(one), mask_of(again))
    assert not torch.equal(one.xT, other.xT)
    torch.manual_seed(3)
    first, second = corruption(x0), corruption(x0)
    assert not torch.equal(first.xT, second.xT)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_the_draw_does_not_depend_on_the_type(kind: torch.dtype) -> None:
    x0, corruption = photographs(), Inpainting(BrushStrokes())
    source, wanted = corruption(x0.to(kind), generator()), corruption(x0, generator())
    assert source.xT.dtype == mask_of(source).dtype == kind
    if kind == torch.float64:
        assert torch.equal(mask_of(source).float(), mask_of(wanted))
        torch.testing.assert_close(source.xT.float(), wanted.xT)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("hole", [CentreHole(), BrushStrokes()], ids=repr)
def test_a_generator_of_the_cpu_serves_images_on_a_gpu(hole) -> None:
    x0 = photographs()
    there, here = Inpainting(hole)(x0.cuda(), generator()), Inpainting(hole)(x0, generator())
    assert there.xT.is_cuda
    assert mask_of(there).is_cuda
    assert float((there.xT.cpu() == here.xT).float().mean()) > 0.99
    Inpainting(hole)(x0.cuda(), torch.Generator("cuda"))
    Inpainting(hole)(x0.cuda())


@given(height=st.integers(2, 40), width=st.integers(2, 40), side=st.sampled_from([0.25, 0.5, 0.7, 1.0]))
@settings(deadline=None)
def test_the_centre_hole_is_centred_and_as_large_as_it_says(height: int, width: int, side: float) -> None:
    assume(side * min(height, width) >= 2)
    x0 = torch.zeros(2, 3, height, width)
    mask = mask_of(Inpainting(CentreHole(side))(x0))
    assert torch.equal(mask, mask.flip(2))
    assert torch.equal(mask, mask.flip(3))
    assert torch.equal(mask[0], mask[1])
    for dim, size in ((2, height), (3, width)):
        assert abs(float(mask.amax(5 - dim).sum(-1).max()) - side * size) <= 1
    assert float(mask[0].sum()) == float(mask[0, 0].amax(0).sum() * mask[0, 0].amax(1).sum())


def test_half_the_side_is_the_middle_of_32() -> None:
    mask = mask_of(Inpainting()(photographs(1)))[0, 0]
    expected = torch.zeros(32, 32)
    expected[8:24, 8:24] = 1
    assert torch.equal(mask, expected)


@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    least=st.floats(0.05, 0.6),
    spread=st.floats(0.05, 0.3),
    strokes=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_strokes_keep_their_range_to_the_pixel(
    height: int, width: int, least: float, spread: float, strokes: int, seed: int
) -> None:
    hole = BrushStrokes(least, least + spread, strokes)
    count = hole(torch.zeros(8, 3, height, width), generator(seed)).flatten(1).sum(1)
    assert float(count.min()) >= least * height * width - 1e-3
    assert float(count.max()) <= (least + spread) * height * width + 1e-3


def test_strokes_use_the_whole_range_and_reach_every_place() -> None:
    mask = BrushStrokes(0.1, 0.3)(torch.zeros(2000, 1, 16, 24), generator())
    shares = mask.mean((1, 2, 3))
    assert 0.195 < float(shares.mean()) < 0.205
    assert abs(float(shares.std()) - 0.2 / 12**0.5) < 0.003
    often = mask.mean((0, 1))
    assert float(often.min()) > 0.05, "some pixels are never missing"
    assert float(often.max()) < 0.4


def test_strokes_are_strokes() -> None:
    """Few connected pieces with long borders, of different shapes: neither single pixels nor one disc."""
    from scipy import ndimage

    masks = BrushStrokes(0.15, 0.2, strokes=3)(torch.zeros(50, 1, 64, 64), generator())[:, 0].numpy()
    eight = [[1, 1, 1]] * 3
    pieces = [ndimage.label(mask, eight)[1] for mask in masks]
    assert max(pieces) <= 3
    assert min(pieces) >= 1
    thickness = [ndimage.distance_transform_edt(mask).max() for mask in masks]
    disc = (0.15 * 64 * 64 / 3.14) ** 0.5
    assert sum(thickness) / len(thickness) < disc / 2
    assert len({mask.tobytes() for mask in masks}) == 50


def test_the_brushes_of_an_image_differ_in_breadth() -> None:
    from scipy import ndimage

    ratios = []
    for mask in BrushStrokes(0.04, 0.06, strokes=2)(torch.zeros(60, 1, 96, 96), generator())[:, 0].numpy():
        pieces, count = ndimage.label(mask, [[1, 1, 1]] * 3)
        if count == 2:
            depth = ndimage.distance_transform_edt(mask)
            one, other = sorted(depth[pieces == piece].max() for piece in (1, 2))
            ratios.append(other / one)
    # With equal brushes only bends and crossings differ, and half of the ratios are below 1.2.
    assert len(ratios) > 20
    assert sorted(ratios)[len(ratios) // 2] > 1.3


def test_a_hole_of_your_own() -> None:
    def right_half(x0, generator=None):
        mask = torch.zeros_like(x0[:, :1])
        mask[..., x0.shape[-1] // 2 :] = 1
        return mask

    x0 = photographs()
    source = Inpainting(right_half)(x0, generator())
    assert torch.equal(source.xT[..., :16], x0[..., :16])
    assert not (source.xT[..., 16:] == x0[..., 16:]).any()


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(3, 8, 8\).*image\[None\]"):
        Inpainting()(torch.zeros(3, 8, 8))
    with pytest.raises(TypeError, match=r"uint8"):
        Inpainting()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"expected CentreHole\(\), BrushStrokes\(\)"):
        Inpainting(0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected CentreHole\(\), BrushStrokes\(\)"):
        Inpainting(CentreHole)  # type: ignore[arg-type]
    for side in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"side is {side}"):
            CentreHole(side)
    with pytest.raises(ValueError, match="no pixel in an image of 4 x 4"):
        CentreHole(0.1)(torch.zeros(1, 3, 4, 4))
    for least, most in ((0.0, 0.3), (0.4, 0.3), (0.4, 1.0)):
        with pytest.raises(ValueError, match=f"least and most are {least} and {most}"):
            BrushStrokes(least, most)
    with pytest.raises(ValueError, match="strokes is 0"):
        BrushStrokes(strokes=0)
    with pytest.raises(ValueError, match="no number of pixels of a 4 x 4 image"):
        BrushStrokes(0.13, 0.18)(torch.zeros(1, 3, 4, 4))


def test_wrong_masks_are_refused() -> None:
    x0 = photographs()
    with pytest.raises(ValueError, match="mask must be"):
        Inpainting(lambda x0, generator: torch.zeros(32, 32))(x0)
    with pytest.raises(ValueError, match="1 in the hole and 0 elsewhere"):
        Inpainting(lambda x0, generator: torch.full((6, 1, 32, 32), 0.5))(x0)
