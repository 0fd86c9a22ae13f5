"""Bridges between codes: exact where the autoencoder is, refused where codes are none, and holes keep their promise."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.bridges import Brownian
from ibmd_lite.data import CentreHole, Corrupted, Inpainting, Photographs, SuperResolution
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.latent import Latent
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws, Settings

POOLED = Corrupted(Photographs(16), SuperResolution(4, "pool"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(x: Tensor) -> Tensor:
    return x


def orthogonal() -> tuple[nn.Conv2d, nn.ConvTranspose2d]:
    """Two by two pixels of three channels as twelve numbers, turned: nothing is lost, no code sees its neighbours."""
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator())).Q.reshape(12, 3, 2, 2)
    encode, decode = nn.Conv2d(3, 12, 2, 2, bias=False), nn.ConvTranspose2d(12, 3, 2, 2, bias=False)
    encode.load_state_dict({"weight": turn})
    decode.load_state_dict({"weight": turn})
    return encode, decode


class Around(nn.Module):
    """Codes of four by four pixels that see one pixel beyond them: a reach of one code."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def wide(codes: Tensor) -> Tensor:
    return functional.interpolate(codes[:, :3], scale_factor=4.0)


def train(pairs, sources, channels: int = 3) -> tuple[BridgeModel, Student]:
    """A teacher and its student, a few updates each, the same random numbers whatever the streams."""
    torch.manual_seed(0)
    model = BridgeModel(UNet(channels, 8, (1, 2)), Brownian(0.1))
    training = TeacherTraining(model, Settings(1e-3, average=0.9), device="cpu")
    for _ in training.updates(Draws(pairs, 4), 3):
        pass
    settings = DistillationSettings(fake_updates=2)
    run = Distillation(training.teacher, Student.of(training.teacher), settings=settings, device="cpu")
    for _ in run.updates(Draws(sources, 4), 2):
        pass
    return training.teacher, run.student


def test_codes_that_are_the_images_train_to_the_bit_as_images_do() -> None:
    latent = Latent(same, same)
    plain = train(POOLED.draw, POOLED.sources)
    coded = train(latent.pairs(POOLED.draw), latent.sources(POOLED.sources))
    for one, other in zip(plain, coded, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))
    xT = POOLED.sources(3, generator(1))
    assert torch.equal(latent.restore(coded[1], xT, generator(2)), plain[1](xT, generator=generator(2)))


class Turned(nn.Module):
    """A network on images, made of one on their turned codes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, (self.encode, self.decode) = network, orthogonal()
        self.requires_grad_(False)

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        return self.decode(self.network(self.encode(xt), time))


def test_turned_codes_are_another_view_of_the_same_bridge() -> None:
    latent = Latent(*orthogonal())
    torch.manual_seed(1)
    network = UNet(12, 8, (1, 2))
    nn.init.normal_(network.output_layer.weight, std=0.1)
    bridge, t = Brownian(0.3), torch.tensor([0.2, 0.7, 1.0])
    (x0, xT), noise = POOLED.draw(3, generator()), torch.randn(3, 3, 16, 16, generator=generator(3))
    z0, source = latent.pairs(POOLED.draw)(3, generator())
    zt = bridge.sample(z0, source.xT, t, latent.codes(noise))
    xt = bridge.sample(x0, xT, t, noise)
    torch.testing.assert_close(latent.images(zt), xt, atol=1e-5, rtol=0)
    in_codes = BridgeModel(network, bridge)(zt, t)
    in_pixels = BridgeModel(Turned(network), bridge)(xt, t)
    torch.testing.assert_close(latent.images(in_codes), in_pixels, atol=1e-5, rtol=0)
    errors = [(in_codes - z0).square().mean(), (in_pixels - x0).square().mean()]
    torch.testing.assert_close(*errors)

    _, student = train(latent.pairs(POOLED.draw), latent.sources(POOLED.sources), channels=12)
    answer = student(source, generator=generator(4))
    restored = latent.restore(student, xT, generator(4))
    torch.testing.assert_close(restored, latent.decode(answer).detach())
    torch.testing.assert_close(restored.square().sum(), answer.square().sum())


def test_fitted_codes_have_unit_variance_and_the_way_back_undoes_it() -> None:
    encode, decode = orthogonal()
    x = Photographs(16).crops(32, generator())
    latent = Latent.fitted(encode, decode, x)
    assert latent.codes(x).std().item() == pytest.approx(1, abs=1e-5)
    assert latent.scale == pytest.approx(1 / encode(x).std().item())
    torch.testing.assert_close(latent.images(latent.codes(x)), x, atol=1e-5, rtol=0)


def test_no_gradient_reaches_the_autoencoder() -> None:
    latent = Latent(*orthogonal())
    x = Photographs(16).crops(2, generator()).requires_grad_()
    codes = latent.codes(x)
    assert not codes.requires_grad
    assert not latent.images(codes).requires_grad
    assert not latent.source(Source(x)).xT.requires_grad


def hole(rows: slice, columns: slice, size: int = 32) -> Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., rows, columns] = 1
    return mask


def test_a_code_is_in_the_hole_if_one_of_its_pixels_is() -> None:
    x = Photographs(32).crops(1, generator())
    source = Latent(Around(), wide).source(
        Source(x, mask=hole(slice(7, 9), slice(12, 20)), task=3, label=torch.ones(1))
    )
    expected = torch.zeros(1, 1, 8, 8)
    expected[..., 1:3, 3:5] = 1  # rows 7 and 8 lie in codes 1 and 2
    assert torch.equal(source.mask, expected)
    assert (source.task, source.label.item()) == (3, 1)


@pytest.mark.parametrize(("reach", "holds"), [(0, False), (1, True)])
def test_known_codes_know_nothing_of_the_hole_if_the_reach_is_the_encoders(reach: int, holds: bool) -> None:
    """Against the codes of the clean image, which the encoder saw whole."""
    latent, x0 = Latent(Around(), wide, reach=reach), Photographs(32).crops(1, generator())
    source = Inpainting(CentreHole())(x0, generator(1))
    codes = latent.source(source, generator(2))
    known = codes.mask.expand_as(codes.xT) == 0
    assert torch.allclose(codes.xT[known], latent.codes(x0)[known], atol=1e-6) == holds


def test_what_stood_in_the_hole_reaches_no_code() -> None:
    latent, x0 = Latent(Around(), wide), Photographs(32).crops(1, generator())
    one, other = (latent.source(Inpainting(CentreHole())(x0, generator(seed)), generator(2)) for seed in (0, 1))
    assert torch.equal(one.xT, other.xT)


def test_the_codes_of_a_hole_are_noise_that_one_seed_repeats() -> None:
    cut = Corrupted(Photographs(32), Inpainting(CentreHole(0.75)))
    latent = Latent(Around(), wide)
    draw = latent.sources(cut.sources)
    first, again, other = draw(16, generator()), draw(16, generator()), draw(16, generator(1))
    assert torch.equal(first.xT, again.xT)
    assert not torch.equal(first.xT, other.xT)
    inside = first.xT[first.mask.expand_as(first.xT) == 1]
    assert inside.std().item() == pytest.approx(1, abs=0.05)
    x0, source = latent.pairs(cut.draw)(16, generator())
    assert torch.equal(source.xT, first.xT)
    assert x0.shape == source.xT.shape


def test_a_restored_image_keeps_the_pixels_that_were_known() -> None:
    latent = Latent(Around(), wide, reach=1)
    source = Inpainting(CentreHole())(Photographs(32).crops(2, generator()), generator(1))
    student = Student.of(BridgeModel(UNet(4, 8, (1, 2)), Brownian(0.1)))
    restored = latent.restore(student, source, generator(2))
    known = source.mask.expand_as(restored) == 0
    assert torch.equal(restored[known], source.xT[known])
    assert not torch.equal(restored, source.xT)
    assert torch.equal(restored, latent.restore(student, source, generator(2)))


X = torch.zeros(2, 3, 8, 8)
REFUSED = {
    "no function": (lambda: Latent(None, same), TypeError, "encode is None"),
    "a class": (lambda: Latent(same, nn.Identity), TypeError, "decode is <class"),
    "no scale": (lambda: Latent(same, same, scale=0.0), ValueError, "scale is 0.0"),
    "no reach": (lambda: Latent(same, same, reach=-1), ValueError, "reach is -1"),
    "bytes": (lambda: Latent(same, same).codes(X.byte()), ValueError, "torch.uint8"),
    "a distribution": (lambda: Latent(lambda x: (x,), same).codes(X), TypeError, "encode returned tuple"),
    "no places": (lambda: Latent(lambda x: x.flatten(1), same).codes(X), ValueError, r"\(2, 192\) of \(2, 3, 8, 8\)"),
    "another batch": (lambda: Latent(lambda x: x[:1], same).codes(X), ValueError, "encode made"),
    "no divisor": (lambda: Latent(lambda x: x[..., :3, :3], same).codes(X), ValueError, "sides that divide"),
    "not finite": (lambda: Latent(lambda x: x / 0, same).codes(X + 1), ValueError, "NaN or infinite"),
    "decoded to a tuple": (lambda: Latent(same, lambda z: (z,)).images(X), TypeError, "decode returned tuple"),
    "one number": (lambda: Latent.fitted(same, same, X), ValueError, "are one number"),
    "another decoder": (lambda: Latent.fitted(same, wide, X.normal_()), ValueError, r"decoded \(2, 3, 32, 32\)"),
    "restored to another shape": (
        lambda: Latent(same, wide).restore(lambda source, generator: source.xT, X),
        ValueError,
        r"decoded \(2, 3, 32, 32\)",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_autoencoder_is_refused(call, kind, message) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_an_encoder_that_draws_is_refused() -> None:
    x = Photographs(16).crops(8, generator())
    encode, decode = orthogonal()
    dropping = nn.Sequential(nn.Dropout(0.5), encode)
    with pytest.raises(ValueError, match=r"different codes: call eval\(\)"):
        Latent.fitted(dropping, decode, x)
    assert Latent.fitted(dropping.eval(), decode, x).scale > 0


def test_a_decoder_worse_than_the_mean_image_is_doubted() -> None:
    x = Photographs(16).crops(8, generator())
    encode, decode = orthogonal()
    with pytest.warns(UserWarning, match="farther from the images than their mean"):
        Latent.fitted(encode, lambda codes: -decode(codes), x)


def test_images_that_the_encoder_cannot_take_are_named() -> None:
    with pytest.raises(ValueError, match="images of 30 x 30 pixels"):
        Latent(lambda x: functional.pixel_unshuffle(x, 4), same).codes(torch.zeros(1, 3, 30, 30))
