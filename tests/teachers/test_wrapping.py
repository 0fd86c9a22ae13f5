"""A reader's own network: what it is wrapped as is held against what it says, and the usual mistakes are named.

Most networks here are the exact posterior mean, said in any prediction type and time: good, and for nothing.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB, Flow, ResShift, like
from ibmd_lite.data import Photographs, RotatedNoisy, SuperResolution
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BBDM, DDBM, OUTPUTS, X0, BridgeModel, I2SBNoise, Output, Prediction, Retimed, Source
from ibmd_lite.networks import MLP, UNet
from ibmd_lite.teachers import Check, Doubtful, Labelled, Wrapped, examine, wrap
from ibmd_lite.teachers.examination import _explanations
from ibmd_lite.training import Draws, Settings

CENTRES = 0.9 * torch.tensor([[-1.0, -1], [1, 1], [1, -0.5], [-0.6, 1], [0, 0.1]])
SPREAD = 0.3
CLOCKS: dict[str, Callable[[Tensor, Bridge], Tensor]] = {
    "1000 t/T": lambda told, bridge: told * bridge.T / 1000,
    "t/T": lambda told, bridge: told * bridge.T,
    "1 - t/T": lambda told, bridge: bridge.T * (1 - told),
    "250 log t": lambda told, bridge: (told / 250).exp(),
}
"""The time of a bridge from what a network is told."""


def draw(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """x0 one of five points in the square, xT of N(0, 0.3^2), independent."""
    random = torch.Generator().manual_seed(seed)
    which = torch.randint(len(CENTRES), (n,), generator=random)
    return CENTRES[which], SPREAD * torch.randn(n, 2, generator=random)


class Exact(nn.Module):
    """E[x0 | xt] or E[x0 | xt, xT] on the points of ``draw``, said in a prediction type and told a time."""

    def __init__(self, bridge: Bridge, prediction: Prediction, time: str) -> None:
        super().__init__()
        self.bridge, self.prediction, self.time = bridge, prediction, time
        self.none = nn.Parameter(torch.zeros(()))

    def mean(self, xt: Tensor, t: Tensor, xT: Tensor | None) -> Tensor:
        a, b, c = (like(curve, xt) for curve in self.bridge.coefficients(t))
        known = 0 * xt if xT is None else a * xT
        variance = c.square() + (0 if xT is not None else (SPREAD * a).square()) + 1e-4
        distance = ((xt - known)[:, None] - b[..., None] * CENTRES).square().sum(2)
        return (-distance / (2 * variance)).softmax(1) @ CENTRES

    def forward(self, inputs: Tensor, told: Tensor, xT: Tensor | None = None) -> Tensor:
        t = CLOCKS[self.time](told.double(), self.bridge).clamp(1e-3, self.bridge.T)
        t = t if self.bridge.times is None else t.round().clamp_min(1)
        skip, out, scale, _ = (like(x, inputs) for x in self.prediction.scalings(self.bridge, t))
        xt = inputs / scale
        return (self.mean(xt, t, xT) - skip * xt) / out + self.none


FAMILIES: dict[str, tuple[Bridge, Prediction, str, bool]] = {
    "brownian": (Brownian(0.5), BBDM(), "1000 t/T", False),
    "i2sb": (ContinuousI2SB(0.3), X0(), "1000 t/T", False),
    "vp": (VP(), DDBM(), "250 log t", True),
    "resshift": (ResShift(kappa=1.0), X0(), "1000 t/T", True),
    "flow": (Flow(), BBDM(), "1000 t/T", False),
}


def model_of(name: str, **said: object) -> BridgeModel:
    """The exact model of a family, wrapped as it is but for what is said."""
    bridge, prediction, time, conditional = FAMILIES[name]
    told = {"bridge": bridge, "prediction": prediction, "conditional": conditional} | said
    return wrap(Exact(bridge, prediction, time), **told)  # type: ignore[arg-type]


PAIRS = draw(192)


def checked(model: BridgeModel, pairs: tuple[Tensor, Tensor] = PAIRS) -> Check:
    """On few times, to be quick."""
    return examine(model, pairs=pairs, times=6)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_good_teacher_passes_in_silence(name: str) -> None:
    model = model_of(name, pairs=PAIRS, times=6)  # a warning would be an error here
    bridge, prediction, _, conditional = FAMILIES[name]
    assert model.about == BridgeModel(nn.Identity(), bridge, prediction=prediction, conditional=conditional).about
    assert not model.training
    check = checked(model)
    assert check.verdict == "agrees"
    assert check.mistake is None
    assert check.given.slack < 0.03


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"prediction": "x0 - xt"}, "prediction"),
        ({"prediction": "(xt - x0) T/t"}, "prediction"),
        ({"time": "1 - t/T"}, "direction of time"),
        ({"time": "t/T"}, "scale of time"),
    ],
)
def test_a_wrong_word_is_found_and_the_right_one_told(name: str, said: dict[str, str], kind: str) -> None:
    model = model_of(name, **said)
    check = checked(model)
    assert (check.verdict, check.mistake) == ("mistake", kind), str(check)
    assert check.best is not None
    assert check.best.reading.prediction == FAMILIES[name][1]


@pytest.mark.parametrize("name", ["brownian", "vp", "resshift"])
@pytest.mark.parametrize("factor", [1 / 16, 16])
def test_noise_of_another_size_is_found(name: str, factor: float) -> None:
    bridge = FAMILIES[name][0]
    parameter, power = {"brownian": ("eps", 1), "vp": ("beta_d", 1), "resshift": ("kappa", 0.5)}[name]
    wrong: Bridge = replace(bridge, **{parameter: getattr(bridge, parameter) * factor**power})  # type: ignore[type-var]
    check = checked(model_of(name, bridge=wrong))
    assert check.mistake == "noise of the bridge", str(check)
    assert check.best is not None
    assert check.best.reading.bridge == bridge


@pytest.mark.parametrize("name", ["brownian", "resshift"])
def test_pairs_in_the_wrong_order_or_range_are_found(name: str) -> None:
    x0, xT = PAIRS
    model = model_of(name)
    assert checked(model, (xT, x0)).mistake == "order of the pairs"
    check = checked(model, ((x0 + 1) / 2, (xT + 1) / 2))
    assert check.mistake == "range of the images"
    assert check.best is not None
    assert check.best.reading.write == "images as 2 x - 1"
    assert checked(model, (127.5 * (x0 + 1), 127.5 * (xT + 1))).mistake == "range of the images"


class Deaf(nn.Module):
    """A network that takes xT and does not look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Exact(*FAMILIES["flow"][:3])

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None) -> Tensor:
        output: Tensor = self.inner(xt, time)
        return output


def test_a_network_that_does_not_look_at_xT_is_no_conditional_one() -> None:
    wrap(Deaf(), Flow(), prediction=BBDM(), pairs=PAIRS, times=4)
    with pytest.raises(ValueError, match="Write conditional=False"):
        wrap(Deaf(), Flow(), prediction=BBDM(), conditional=True, pairs=PAIRS, times=4)


def test_what_is_certain_is_refused_and_the_message_says_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"Likely mistake: prediction\. Write prediction=BBDM\(\)"):
        model_of("flow", prediction=X0(), pairs=PAIRS, times=6)
    with pytest.raises(ValueError, match=r"Likely mistake: scale of time\. Write no time="):
        model_of("resshift", time="t/T", pairs=PAIRS, times=6)


def test_faint_evidence_and_own_samples_only_warn() -> None:
    with pytest.warns(Doubtful, match="noise of the bridge"):
        model_of("brownian", bridge=Brownian(2.0), pairs=PAIRS, times=6)
    with pytest.warns(Doubtful, match="does not fit|is not what"):
        model_of("flow", prediction=X0(), sources=PAIRS[1], times=6)


@pytest.mark.parametrize("name", ["brownian", "vp", "flow"])
def test_own_samples_agree_with_a_good_teacher(name: str) -> None:
    model_of(name, sources=PAIRS[1], times=6)


class Small(nn.Module):
    """A network of the reader's: it takes xT or leaves it, and adds nothing of it where it is left."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MLP(2, 48, 2, conditional=True)

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None) -> Tensor:
        output: Tensor = self.inner(xt, time, torch.zeros_like(xt) if xT is None else xT)
        return output


@pytest.fixture(scope="module")
def trained() -> TeacherTraining:
    torch.manual_seed(0)
    model = BridgeModel(Small(), VP(), prediction=DDBM(), conditional=True)
    run = TeacherTraining(model, Settings(4e-3, average=0.99))
    for _ in run.updates(Draws(RotatedNoisy().draw, 128), 500):
        pass
    return run


@pytest.fixture(scope="module")
def moons() -> tuple[Tensor, Tensor]:
    return RotatedNoisy().draw(256, torch.Generator().manual_seed(1))


def test_a_trained_network_passes_and_its_mistakes_do_not(
    trained: TeacherTraining, moons: tuple[Tensor, Tensor]
) -> None:
    network = trained.teacher.network
    wrap(network, VP(), prediction=DDBM(), conditional=True, pairs=moons)
    for said in ({"conditional": False}, {"time": "1000 t/T"}, {"prediction": BBDM()}):
        told = {"prediction": DDBM(), "conditional": True} | said
        with pytest.raises(ValueError, match="Likely mistake"):
            wrap(network, VP(), pairs=moons, **told)  # type: ignore[arg-type]


def test_raw_weights_are_told_from_averaged_ones(trained: TeacherTraining, moons: tuple[Tensor, Tensor]) -> None:
    raw, averaged = trained.model.network, trained.teacher.network
    with pytest.warns(Doubtful, match="The averaged weights err .* less"):
        wrap(raw, VP(), prediction=DDBM(), conditional=True, pairs=moons, averaged=averaged.state_dict())
    wrap(averaged, VP(), prediction=DDBM(), conditional=True, pairs=moons, averaged=raw)


def test_a_weak_network_is_doubted_and_not_refused(moons: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    run = TeacherTraining(BridgeModel(MLP(2, 48, 2), Brownian(0.5)), Settings(4e-3, average=0.9))
    for _ in run.updates(Draws(RotatedNoisy().draw, 128), 60):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubtful)
        wrap(run.teacher.network, Brownian(0.5), prediction=X0(), pairs=moons)


def test_pairs_may_come_in_batches_and_only_as_many_are_taken() -> None:
    taken = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for k in itertools.count():
            taken.append(k)
            yield draw(40, seed=k)

    check = examine(model_of("flow"), pairs=batches(), samples=100, times=4)
    assert taken == [0, 1, 2]
    assert check.verdict == "agrees"
    assert len(check.given.error) == 4
    assert str(check).count("\n") == 6
    assert "affine" in str(check)
    two = [list(draw(40)), draw(40, seed=2)]
    assert examine(model_of("flow"), pairs=two, times=4) == examine(model_of("flow"), pairs=iter(two), times=4)


def test_what_was_looked_at_is_said_and_so_is_nothing() -> None:
    bare, on_pairs, on_sources = (
        model_of("flow", **told) for told in ({}, {"pairs": PAIRS, "times": 4}, {"sources": PAIRS[1], "times": 4})
    )
    assert isinstance(bare, Wrapped)
    assert bare.check is None
    assert "not checked: neither pairs nor sources" in repr(bare)
    for model, on, words in (
        (on_pairs, "pairs", "On pairs: the"),
        (on_sources, "own samples", "On its own samples: the"),
    ):
        assert isinstance(model, Wrapped)
        assert model.check is not None
        assert model.check.words.startswith(words)
        assert f"checked on {on}: agrees" in repr(model)
    with pytest.warns(Doubtful, match=r"^On its own samples: "):
        model_of("flow", prediction=X0(), sources=PAIRS[1], times=6)
    with pytest.raises(ValueError, match=r"\nOn pairs: the network is not what"):
        model_of("flow", prediction=X0(), pairs=PAIRS, times=6)


class ToldThePoint(nn.Module):
    """Knows x0 from the label alone, and cannot do without one."""

    def forward(self, xt: Tensor, time: Tensor, *, label: Tensor) -> Tensor:
        return xt - CENTRES[label]


def test_labels_come_with_a_source_and_reach_the_network() -> None:
    x0, xT = PAIRS
    label = (x0[:, None] - CENTRES).square().sum(2).argmin(1)
    said = {"prediction": BBDM(), "times": 4}
    for given in ({"pairs": (x0, Source(xT, label=label))}, {"sources": Source(xT, label=label), "steps": 4}):
        wrap(ToldThePoint(), Brownian(0.5), **said, **given)  # type: ignore[arg-type]
    with pytest.warns(Doubtful, match="On pairs: the network does not fit"):
        wrap(ToldThePoint(), Brownian(0.5), pairs=(x0, Source(xT, label=label.flip(0))), **said)  # type: ignore[arg-type]
    halves = [(x0[k : k + 96], Source(xT[k : k + 96], label=label[k : k + 96])) for k in (0, 96)]
    wrap(ToldThePoint(), Brownian(0.5), pairs=iter(halves), samples=192, **said)  # type: ignore[arg-type]
    halves[1] = (halves[1][0], Source(halves[1][1].xT))
    with pytest.raises(ValueError, match="some batches have a label and some have none"):
        wrap(ToldThePoint(), Brownian(0.5), pairs=iter(halves), samples=192, **said)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="several tasks"):
        examine(model_of("flow"), sources=iter([Source(xT, task=0), Source(xT, task=1)]), samples=300)


def test_pairs_with_labels_as_they_are_drawn() -> None:
    pairs = Labelled(Photographs(8), SuperResolution(8, "pool")).draw(16, torch.Generator().manual_seed(0))
    network = UNet(3, 8, (1,), labels=8)
    assert examine(BridgeModel(network, Brownian(0.5)), pairs=pairs, times=2).on == "pairs"


class Fields(nn.Module):
    """Smooth Gaussian images, their blurred partners, and the exact E[x0 | xt] of them: a filter for each time."""

    def __init__(self, bridge: Bridge, size: int = 16) -> None:
        super().__init__()
        self.bridge, self.size = bridge, size
        rows, columns = torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)
        square = rows.square() + columns.square()
        self.power, self.blur = (square + 0.01).pow(-1.5), (-60 * square).exp()
        self.power *= 0.09 / self.power.mean()

    def filtered(self, x: Tensor, by: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * by, s=x.shape[2:])

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(n, 1, self.size, self.size, generator=torch.Generator().manual_seed(7))
        x0 = self.filtered(noise, self.power.sqrt())
        return x0, self.filtered(x0, self.blur)

    def forward(self, xt: Tensor, told: Tensor) -> Tensor:
        t = CLOCKS["1000 t/T"](told.double(), self.bridge).clamp(1e-3, self.bridge.T)
        a, b, c = (like(x, xt).float() for x in self.bridge.coefficients(t))
        gain = a * self.blur + b
        return self.filtered(xt, gain * self.power / (gain.square() * self.power + c.square() + 1e-6))


FIELDS = Fields(Brownian(0.05))
IMAGES = FIELDS.draw(64)


def test_an_exact_network_of_images_passes_in_silence() -> None:
    model = wrap(FIELDS, Brownian(0.05), prediction="x0", pairs=IMAGES, times=5)
    assert model.check is not None
    assert model.check.given.fine < 0.01


@pytest.mark.parametrize("wrong", [Brownian(0.2), VP(), ContinuousI2SB(0.3), Flow()])
def test_another_bridge_is_seen_in_the_fine_detail_of_images(wrong: Bridge) -> None:
    """The error and the affine refit do not see most of these in a network that says x0."""
    with pytest.warns(Doubtful, match=r"may be|noise of the bridge"):
        model = wrap(FIELDS, wrong, prediction="x0", pairs=IMAGES, times=5)
    assert model.check is not None
    assert not model.check.certain
    assert model.check.best is not None
    assert model.check.best.fine < 0.3 * model.check.given.fine
    if isinstance(wrong, ContinuousI2SB):  # here the affine refit sees nothing
        assert (model.check.verdict, model.check.detail) == ("doubtful", True)
        assert "a refit of fine detail apart takes another 4% of its error away" in model.check.words


def test_images_from_0_to_1_are_doubted_and_the_range_is_named() -> None:
    bright = ((IMAGES[0] + 1) / 2, (IMAGES[1] + 1) / 2)
    with pytest.warns(Doubtful, match=r"images as 2 x - 1"):
        wrap(FIELDS, Brownian(0.05), prediction="x0", pairs=bright, times=5)


def test_the_ranges_that_fit_are_all_named_the_right_one_first() -> None:
    bytewise = (127.5 * (IMAGES[0] + 1), 127.5 * (IMAGES[1] + 1))
    check = examine(wrap(FIELDS, Brownian(0.05), prediction="x0"), pairs=bytewise, times=5)
    assert check.mistake == "range of the images"
    assert check.best is not None
    assert check.best.reading.write == "images as x/127.5 - 1"
    ranges = {"x/255": (0.048, 0.044), "x/127.5 - 1": (0.056, 0.011)}  # slack and fine, as of a network that says x0
    curves = [
        replace(
            check.best,
            reading=replace(check.best.reading, images=images, write=f"images as {images}"),
            error=(math.exp(slack),) * 5,
            affine=(10.0,) * 5,
            refitted=(1.0,) * 5,
            finer=(math.exp(-fine),) * 5,
        )
        for images, (slack, fine) in ranges.items()
    ]
    fits = [curve.reading.images for curve in _explanations(check.given, curves, 0.06)]
    assert fits == ["x/127.5 - 1", "x/255"]
    assert "Or images as x/255: that fits too." in replace(check, also=("images as x/255",)).words


class OneColumn(nn.Module):
    """Exact in the first column of an image of 1 x 2, and of no sense in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Exact(*FAMILIES["brownian"][:3])

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        return torch.stack([self.inner(xt[..., 0, 0], time), torch.full_like(xt[..., 0, 0], 7)], 2)[:, :, None]


def test_with_a_mask_the_hole_alone_counts() -> None:
    x0, xT = (torch.stack([x, PAIRS[1]], 2)[:, :, None] for x in PAIRS)
    mask = torch.tensor([1.0, 0]).expand(len(x0), 1, 1, 2)
    wrap(OneColumn(), Brownian(0.5), prediction=BBDM(), pairs=(x0, Source(xT, mask)), times=4)
    with pytest.warns(Doubtful):
        wrap(OneColumn(), Brownian(0.5), prediction=BBDM(), pairs=(x0, xT), times=4)


def test_formulas_are_the_package_s_own_where_it_has_them() -> None:
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    bridge = ContinuousI2SB()
    known: dict[str, Prediction] = {"x0": X0(), "xt - x0": BBDM(), "(xt - alpha x0)/sigma": I2SBNoise()}
    for name, prediction in known.items():
        ours, theirs = Output(name).scalings(bridge, t), prediction.scalings(bridge, t)
        assert all(torch.equal(a, b) for a, b in zip(ours[:3], theirs[:3], strict=True)), name
    x0, xT = draw(2)
    xt = VP().sample(x0, xT, t)
    alpha, sigma = (like(x, xt) for x in VP().prior(t))
    said = {
        "(xt - x0) T/t": (xt - x0) / like(t, xt),
        "(x0 - xt) T/t": (x0 - xt) / like(t, xt),
        "-(xt - alpha x0)/sigma^2": -(xt - alpha * x0) / sigma.square(),
        "(xt - alpha x0)/sigma": (xt - alpha * x0) / sigma,
        "x0 - xt": x0 - xt,
    }
    for name, output in said.items():
        skip, out, scale, _ = (like(x, xt) for x in Output(name).scalings(VP(), t))
        assert torch.allclose(skip * xt + out * output, x0, atol=1e-6)
        assert torch.equal(scale, torch.ones_like(scale))
    assert set(said) | {"x0", "xt - x0"} == set(OUTPUTS)
    assert Retimed(DDBM(), "t/T").scalings(VP(), t).time.tolist() == t.tolist()


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"network": lambda xt, time: xt}, TypeError, "must be a torch module"),
        ({"bridge": Brownian}, TypeError, "must be a Bridge"),
        ({"prediction": "v"}, ValueError, r"unknown output 'v'; expected one of \['x0'"),
        ({"prediction": X0}, TypeError, "unknown prediction type"),
        ({"time": "ms"}, ValueError, "unknown time 'ms'; expected one of"),
        ({"prediction": "-(xt - alpha x0)/sigma^2"}, ValueError, "no prior"),
        ({"averaged": nn.Identity()}, ValueError, "are for the check"),
        ({"steps": 3}, ValueError, "are for the check"),
        ({"pairs": draw(20), "sources": draw(20)[1]}, ValueError, "give either pairs"),
        ({"pairs": draw(10)}, ValueError, "at least 16 images, got 10"),
        ({"pairs": (draw(20)[0], draw(30)[1])}, ValueError, "one shape"),
        ({"pairs": (draw(20)[0] * torch.nan, draw(20)[1])}, ValueError, "NaN"),
        ({"pairs": tuple(x.double() for x in draw(20))}, ValueError, r"images are torch\.float64.*write x\.float"),
        ({"pairs": (1, 2)}, TypeError, "a source must be a tensor"),
        ({"pairs": [5]}, ValueError, "one shape"),
        ({"pairs": 5}, TypeError, "expected pairs: .*got int"),
        (
            {"averaged": {"other": torch.zeros(2)}, "pairs": draw(20)},
            ValueError,
            "averaged= fits only some: 1 missing",
        ),
        ({"pairs": draw(20), "times": 1}, ValueError, "two times"),
        ({"conditional": True, "network": nn.Bilinear(2, 2, 2), "pairs": draw(20)}, ValueError, "could not be called"),
    ],
)
def test_wrong_arguments(wrong: dict[str, object], error: type[Exception], match: str) -> None:
    said = {"network": Exact(*FAMILIES["flow"][:3]), "bridge": Flow(), "prediction": "xt - x0"} | wrong
    with pytest.raises(error, match=match):
        wrap(said.pop("network"), said.pop("bridge"), **said)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a BridgeModel is examined, got Exact"):
        examine(Exact(*FAMILIES["flow"][:3]), pairs=draw(20))  # type: ignore[arg-type]
