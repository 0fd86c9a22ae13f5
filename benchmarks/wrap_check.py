"""Which mistakes `ibmd_lite.teachers.wrap` finds: `python benchmarks/wrap_check.py`.

Small teachers of six families in the plane, good and stopped early, are each wrapped in every wrong way; the table
counts what `examine` says, on pairs and on the teacher's own samples. The row that matters most is what it says of a
teacher that is wrapped rightly. `--images FAMILY ...` adds teachers of 16 x 16 images, which take much longer.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from report import keep
from torch import Tensor, nn

from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB, Flow, ResShift
from ibmd_lite.data import Photographs, RotatedNoisy, SuperResolution
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BBDM, DDBM, X0, BridgeModel, I2SBNoise, Output, Prediction, Retimed
from ibmd_lite.networks import MLP, UNet
from ibmd_lite.teachers import Check, examine
from ibmd_lite.training import Draws, Settings

ROOT = Path(__file__).resolve().parents[1]
FAMILIES: dict[str, tuple[Bridge, Prediction, bool]] = {
    "Brownian, BBDM": (Brownian(eps=0.5), BBDM(), False),
    "Brownian, X0, conditional": (Brownian(eps=0.5), X0(), True),
    "I2SB": (ContinuousI2SB(beta_max=0.3), I2SBNoise(), False),
    "VP, DDBM, conditional": (VP(), DDBM(), True),
    "flow": (Flow(), BBDM(), False),
    "ResShift, conditional": (ResShift(kappa=1.0), X0(), True),
}
PLAIN = "what it is"
SHORT = {PLAIN, "prediction", "scale of time", "direction of time", "noise x 16", "noise / 16"}  # of own samples
OUTCOMES = ("right", "silent", "doubted", "other", "refused")


class Optional(nn.Module):
    """A network that may be called with or without xT: one that wants it sees zeros, one that does not drops it."""

    def __init__(self, inner: nn.Module, wants: bool) -> None:
        super().__init__()
        self.inner, self.wants = inner, wants

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None) -> Tensor:
        if not self.wants:
            return self.inner(xt, time)
        return self.inner(xt, time, torch.zeros_like(xt) if xT is None else xT)


class Swapped(nn.Module):
    """The same network with xt and xT in each other's place."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor) -> Tensor:
        return self.inner(xT, time, xt)


class Case(NamedTuple):
    """A mistake, its name in a verdict, the model that has it, and images with it."""

    name: str
    kind: str | None
    model: BridgeModel
    x0: Tensor
    xT: Tensor


def wrong_ways(model: BridgeModel, x0: Tensor, xT: Tensor) -> Iterator[Case]:
    """The model as it is, and with each mistake."""

    def case(name: str, kind: str | None, **said: object) -> Case:
        form = model.form._asdict() | {"network": model.network} | said
        return Case(name, kind, BridgeModel(**form), x0, xT)

    bridge, prediction = model.bridge, model.prediction
    yield case(PLAIN, None)
    for other in (X0(), BBDM(), I2SBNoise(), DDBM(), Output("x0 - xt"), Output("(xt - x0) T/t")):
        needs_prior = isinstance(other, I2SBNoise) and bridge.prior(bridge.grid(1)[:1]) is None
        if type(other) is not type(prediction) and not needs_prior:
            yield case("prediction", "prediction", prediction=other)
    for time in ("1000 t/T" if isinstance(prediction, DDBM) else "250 log t", "t/T"):
        yield case("scale of time", "scale of time", prediction=Retimed(prediction, time))
    for time in ("1000 (1 - t/T)", "1 - t/T"):
        yield case("direction of time", "direction of time", prediction=Retimed(prediction, time))
    if bridge.times is not None:
        yield case("index off by one", "scale of time", prediction=Retimed(prediction, "1000 (t - 1)/T"))
    for factor, name in ((1 / 16, "/ 16"), (1 / 4, "/ 4"), (4, "x 4"), (16, "x 16")):
        if (louder := with_noise(bridge, factor)) is not None:
            yield case(f"noise {name}", "noise of the bridge", bridge=louder)
    if isinstance(bridge, Flow):
        yield case("noise for none", "noise of the bridge", bridge=Brownian(eps=0.5))
    if model.conditional:
        yield case("conditional", "conditional", conditional=False)
        yield case("order of xt and xT", "order of xt and xT", network=Swapped(model.network))
    else:
        yield case("conditional", "conditional", conditional=True)
    yield case("order of the pairs", "order of the pairs")._replace(x0=xT, xT=x0)
    if x0.ndim == 4:
        other = Brownian(eps=0.5) if isinstance(bridge, VP) else VP()
        yield case("another bridge", "bridge", bridge=other)  # at best doubted
        yield case("range of the images", "range of the images")._replace(x0=(x0 + 1) / 2, xT=(xT + 1) / 2)


def with_noise(bridge: Bridge, factor: float) -> Bridge | None:
    """The same family with another variance of its noise, as far as one parameter sets it."""
    parameter = {Brownian: "eps", ContinuousI2SB: "beta_max", VP: "beta_d", ResShift: "kappa"}.get(type(bridge))
    if parameter is None:
        return None
    power = 0.5 if parameter == "kappa" else 1.0
    told = {parameter: getattr(bridge, parameter) * factor**power}
    return replace(bridge, **told)  # type: ignore[type-var]


def trained(family: str, images: bool, updates: int, seed: int) -> tuple[TeacherTraining, Tensor, Tensor]:
    """A teacher, and pairs that it has not seen."""
    bridge, prediction, conditional = FAMILIES[family]
    torch.manual_seed(seed)
    if images:
        inner: nn.Module = UNet(3, 24, (1, 2), 1, 2, conditional)
        train, test = draw_images("train"), draw_images("test")
    else:
        inner, train, test = MLP(2, 64, 2, conditional), RotatedNoisy().draw, RotatedNoisy().draw
    model = BridgeModel(Optional(inner, conditional), bridge, prediction=prediction, conditional=conditional)
    run = TeacherTraining(model, Settings(3e-3, average=0.99, decay=updates, seed=seed))
    for _ in run.updates(Draws(train, 32 if images else 128, seed), updates):
        pass
    return run, *test(256, torch.Generator().manual_seed(1000 + seed))


def draw_images(split: Literal["train", "test"]) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    """Crops of the photographs and their shrunk and enlarged partners."""
    crops, corrupt = Photographs(16, split), SuperResolution(4)

    def draw(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x0 = crops.crops(n, generator)
        return x0, corrupt(x0)

    return draw


def judged(check: Check, kind: str | None) -> str:
    """What became of a case: right, passed in silence, doubted without a reason, or put down to another mistake."""
    if check.verdict == "agrees":
        return "right" if kind is None else "silent"
    if check.verdict == "doubtful":
        return "doubted"
    return "right" if check.mistake == kind else "other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--updates", type=int, default=500, help="of a good teacher")
    parser.add_argument("--weak", type=int, default=100, help="updates of one that was stopped early")
    parser.add_argument("--images", nargs="*", default=[], choices=tuple(FAMILIES))
    parser.add_argument("--families", nargs="+", default=tuple(FAMILIES), choices=tuple(FAMILIES))
    parser.add_argument("--results", type=Path, default=ROOT / "ibmd_lite" / "experiments" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = [
        (family, images, seed)
        for seed in range(arguments.seeds)
        for images, families in ((False, arguments.families), (True, arguments.images))
        for family in families
    ]
    found: dict[tuple[str, str, str], Counter[str]] = {}
    slacks: dict[str, list[float]] = {"good": [], "weak": []}
    gains: list[float] = []
    done: list[str] = []
    for family, images, seed in cases:
        for quality, updates in (("good", arguments.updates), ("weak", arguments.weak)):
            run, x0, xT = trained(family, images, updates, seed)
            for case in wrong_ways(run.teacher, x0, xT):
                check = examine(case.model, pairs=(case.x0, case.xT), samples=192, times=6, seed=seed)
                told = found.setdefault((case.name, "pairs", quality), Counter())
                told[judged(check, case.kind)] += 1
                told["refused"] += check.certain
                if case.kind is None:
                    slacks[quality].append(check.given.slack)
                if case.name in SHORT and quality == "good" and not images:
                    check = examine(case.model, sources=case.xT, samples=96, steps=8, times=4, seed=seed)
                    found.setdefault((case.name, "own samples", quality), Counter())[judged(check, case.kind)] += 1
            if quality == "good":
                plain = BridgeModel(run.model.network, **run.teacher.form._asdict())
                gains.append(examine(plain, pairs=(x0, xT), averaged=run.teacher.network, seed=seed).gain or 0.0)
        done.append(f"{family}, {'images' if images else 'plane'}, seed {seed}")
        rows: list[dict[str, object]] = [
            {"mistake": name, "on": on, "teacher": quality} | {outcome: told[outcome] for outcome in OUTCOMES}
            for (name, on, quality), told in sorted(found.items(), key=lambda item: item[0][1:])
        ]
        settings = {"updates": arguments.updates, "weak": arguments.weak, "teachers": done}
        keep("wrap_check", rows, folder=arguments.results, slack=slacks, averaging_gains=gains, settings=settings)


if __name__ == "__main__":
    main()
