"""Images with a corruption are a coupling that teachers and students learn from."""

import math

import pytest
import torch

from ibmd_lite.bridges import Brownian
from ibmd_lite.data import JPEG, BrushStrokes, Corrupted, Inpainting, Own, Photographs, SuperResolution
from ibmd_lite.distillation import Distillation, DistillationSettings, Student
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel, Source
from ibmd_lite.networks import UNet
from ibmd_lite.training import Draws, Settings


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(x0):
    return x0.mean(1, keepdim=True).expand_as(x0)


def grain(x0, generator):
    return x0 + 0.1 * torch.randn(x0.shape, generator=generator)


def test_pairs_are_the_images_and_what_became_of_them() -> None:
    coupling = Corrupted(Photographs(16), SuperResolution(4, "pool"))
    x0, xT = coupling.draw(5, generator())
    assert torch.equal(x0, Photographs(16).crops(5, generator()))
    assert isinstance(xT, torch.Tensor)
    torch.testing.assert_close(xT, SuperResolution(4, "pool")(x0))


EVERY_KIND = {"file": JPEG(5), "strokes": Inpainting(BrushStrokes()), "own": Own(grey), "with a generator": grain}


@pytest.mark.parametrize("corruption", EVERY_KIND.values(), ids=EVERY_KIND)
def test_one_seed_repeats_everything_and_sources_are_those_of_the_pairs(corruption) -> None:
    coupling = Corrupted(Photographs(16), corruption)
    x0, first = coupling.draw(4, generator())
    again, alone = Source.of(coupling.draw(4, generator())[1]), Source.of(coupling.sources(4, generator()))
    assert torch.equal(Source.of(first).xT, again.xT)
    assert torch.equal(again.xT, alone.xT)
    assert isinstance(coupling.sources(1, generator()), Source) == isinstance(corruption, Inpainting)
    assert not torch.equal(alone.xT, Source.of(coupling.sources(4, generator(1))).xT)
    assert not torch.equal(alone.xT, x0)
    if alone.mask is not None:
        assert torch.equal(alone.mask, again.mask)


def test_own_functions_are_called_with_the_images_alone() -> None:
    x0 = Photographs(8).crops(2, generator())
    assert torch.equal(Own(grey)(x0, generator()), grey(x0))


def test_corruption_happens_on_the_device_that_is_asked_for() -> None:
    seen = []

    def watch(x0, generator):
        seen.append(x0.device.type)
        return x0

    x0, xT = Corrupted(Photographs(8), watch, device="meta").draw(2, generator())
    assert seen == ["meta"]
    assert isinstance(xT, torch.Tensor)
    assert xT.device.type == x0.device.type == "meta"
    assert Corrupted(Photographs(8), watch).draw(2)[0].device.type == "cpu"


@pytest.mark.parametrize("corruption", [SuperResolution(), Inpainting(BrushStrokes())], ids=repr)
def test_a_teacher_and_its_student_learn_from_it(corruption) -> None:
    coupling = Corrupted(Photographs(16), corruption)
    torch.manual_seed(0)
    model = BridgeModel(UNet(width=16, multipliers=(1,), patch=2), Brownian(0.02))
    training = TeacherTraining(model, Settings(2e-3, average=0.9), device="cpu")
    losses = [record.loss for record in training.updates(Draws(coupling.draw, 16), 40)]
    assert sum(losses[-8:]) < 0.95 * sum(losses[:8])
    settings = DistillationSettings(generator=Settings(1e-4), fake=Settings(1e-4))
    run = Distillation(training.teacher, Student.of(training.teacher), settings=settings, device="cpu")
    records = list(run.updates(Draws(coupling.sources, 4), 2))
    assert all(math.isfinite(record.gap) for record in records)
    source = Source.of(coupling.sources(3, generator()))
    restored = run.student(source)
    assert restored.shape == source.xT.shape
    if source.mask is not None:
        known = (1 - source.mask).bool().expand_as(restored)
        assert torch.equal(restored[known], source.xT[known]), "the student repaints what is known"


def test_refusals() -> None:
    photographs = Photographs(8)
    with pytest.raises(TypeError, match=r"expected an object with draw\(n, generator\)"):
        Corrupted(torch.zeros(4, 3, 8, 8), JPEG())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected an object with draw\(n, generator\)"):
        Corrupted(Photographs, JPEG())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected an object such as JPEG\(10\)"):
        Corrupted(photographs, JPEG)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"expected an object such as JPEG\(10\)"):
        Corrupted(photographs, "jpeg")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"if it takes x0 alone, give Own\(function\)"):
        Corrupted(photographs, grey)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) of \(2, 3, 8, 8\).*clean one's shape"):
        Corrupted(photographs, Own(lambda x0: x0[..., ::2, ::2])).draw(2)
    with pytest.raises(ValueError, match="made NoneType of"):
        Corrupted(photographs, Own(lambda x0: None)).draw(2)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="n is 0"):
        Corrupted(photographs, JPEG()).draw(0)
