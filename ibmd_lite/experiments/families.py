"""Every family of public teachers, at a reduced width on real images: trained, walked, distilled, compared.

Lives here: `FAMILIES`, what each family restores here and how its authors walk it, and `FamilyRun`, whose finished
parts are kept in a folder, as in ``restoration``.  Imports the method, the data, the teachers and the evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ibmd_lite.bridges import VE, Bridge, Brownian, ResShift
from ibmd_lite.data import JPEG, Blur, Corrupted, Corruption, Images, Inpainting, Sketch, SuperResolution
from ibmd_lite.distillation import (
    Distillation,
    DistillationSettings,
    Losses,
    Rollout,
    Student,
    end_of_chain,
    ibmd_loss,
    refilled_chain,
)
from ibmd_lite.evaluation import frechet_distance
from ibmd_lite.evaluation.classifier import CIFAR10, load_classifier
from ibmd_lite.evaluation.gap import RefittedGap, refitted_gap
from ibmd_lite.experiments.legs import claim, in_legs, write_json
from ibmd_lite.experiments.restoration import Precision, chosen_precision
from ibmd_lite.experiments.tasks import Mirrored
from ibmd_lite.matching import TeacherTraining
from ibmd_lite.model import BridgeModel, I2SBNoise, Source
from ibmd_lite.sampling import DBIM, Hybrid, Markov, Step, karras_grid, sample
from ibmd_lite.teachers.adm import ADM
from ibmd_lite.teachers.diffusers_unet import DiffusersUNet
from ibmd_lite.teachers.families import build, published
from ibmd_lite.teachers.guidance import Labelled
from ibmd_lite.teachers.resshift import ResShiftX0
from ibmd_lite.teachers.swin import SwinArchitecture, SwinUNet
from ibmd_lite.training import Draws, Settings, best_device

__all__ = ["FAMILIES", "Budget", "EmptyHole", "Family", "FamilyRun"]

SMALL: dict[str, Any] = {"width": 32, "multipliers": (1, 1), "blocks": 1, "attention": (2,), "head": 32}
AGAIN = (5, 6, 7, 8)  # seeds of more draws
JUDGED_AT = 32  # pixels a side, at which the classifier was trained
BATCH = 100  # images that are measured at once
HELD_OUT = 5  # batches of them, for a gap


@dataclass(frozen=True)
class EmptyHole:
    """A hole of zeros in place of noise, as DBIM's inpainting teacher has it: the variety must come from z."""

    hole: Inpainting = Inpainting()  # noqa: RUF009 (frozen)

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Source:
        """The images outside the hole, and the mask."""
        source = self.hole(x0, generator)
        return replace(source, xT=x0 * (1 - source.mask))  # type: ignore[operator]


@dataclass(frozen=True)
class Answered(Source):
    """A source beside the clean image x0 (B, C, H, W) that it was made of."""

    x0: Tensor | None = None

    @staticmethod
    def by(x0: Tensor, source: Source | Tensor) -> Answered:
        """A pair as one thing."""
        source = Source.of(source)
        return Answered(source.xT, source.mask, source.label, x0=x0)

    def truth(self, generator: torch.Generator | None = None) -> Tensor:
        """What a student that draws as the data do could have answered."""
        return self.x0.to(self.xT)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Family:
    """One family: its network in small, what it restores here, and the walk that its authors take.

    model: makes a fresh ``BridgeModel``.  intervals: of the walk.  noise_channels: of z, as many as the image has by
    default.  labels: whether the classes are told.  steps: calls of the students.  rollout: which x0 they learn from.
    """

    model: Callable[[], BridgeModel]
    corruption: Corruption
    walk: Step
    intervals: int = 50
    input_layer: str = ADM.input_layer
    noise_channels: int | None = None
    labels: bool = False
    steps: tuple[int, ...] = (1, 2)
    rollout: Rollout = end_of_chain

    def grid(self, bridge: Bridge) -> Tensor:
        """Times of the walk: DDBM's own for its hybrid sampler, even ones for the others; (times,)."""
        return (karras_grid if isinstance(self.walk, Hybrid) else type(bridge).grid)(bridge, self.intervals)


@dataclass(frozen=True)
class DecadesVE(VE):
    """VE whose times are drawn evenly over their decades, and whose few steps go down as t^(1/7) does.

    Drawn evenly in t, one time in two hundred shows more image than noise; halfway down, at t = 40, a second call finds
    nothing that the first one made.
    """

    def draw_times(
        self, n: int, generator: torch.Generator | None = None, *, device: torch.device | str | None = None
    ) -> Tensor:
        """Times from 1e-4 T to T, uniform in log t."""
        device = generator.device if generator is not None else device
        return self.T * 10.0 ** (-4 * torch.rand(n, generator=generator, device=device))

    def grid(self, steps: int) -> Tensor:
        """Times from T to 0."""
        return self.T * torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 7


def _reduced(name: str, bridge: Bridge | None = None, **changed: Any) -> Callable[[], BridgeModel]:
    own = published(name)

    def model() -> BridgeModel:
        network = build(name, **SMALL, **changed)
        return BridgeModel(network, bridge or own.bridge, conditional=own.conditional, prediction=own.prediction)

    return model


def _resshift() -> BridgeModel:
    """On pixels, as its code allows; the published models are on codes."""
    architecture = SwinArchitecture(
        width=32, multipliers=(1, 1), blocks=1, size=16, swin_width=32, head=32, condition_size=16
    )
    return BridgeModel(SwinUNet(architecture), ResShift(), conditional=True, prediction=ResShiftX0("pixels"))


def _diffusers() -> BridgeModel:
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
    )
    return BridgeModel(DiffusersUNet(network), Brownian(0.02), prediction=I2SBNoise())  # type: ignore[arg-type]


FAMILIES = {
    "I2SB": Family(_reduced("i2sb-sr4x-pool"), SuperResolution(4, "pool"), Markov()),
    "I2SB, ot-ode": Family(_reduced("i2sb-blur-gauss"), Blur(2.0), Markov()),
    # The bridge adds no noise, the hole holds it.
    "I2SB, hole": Family(
        _reduced("i2sb-inpaint-center"),
        Inpainting(),
        Markov(),
        noise_channels=0,
        rollout=refilled_chain,
    ),
    "I2SB, cond-x1": Family(_reduced("i2sb-conditional"), JPEG(10), Markov()),
    "DDBM, VP": Family(_reduced("ddbm-edges2handbags"), Sketch(), Hybrid(), 18),
    "DDBM, VE": Family(_reduced("ddbm-edges2handbags-ve", DecadesVE()), Sketch(), Hybrid(), 18),
    "DBIM": Family(_reduced("dbim-inpaint-center", labels=200), EmptyHole(), DBIM(), labels=True),
    "BBDM": Family(_reduced("bbdm"), SuperResolution(4, "bicubic"), Markov()),
    "ResShift": Family(_resshift, SuperResolution(4, "bicubic"), Markov(), 15, SwinUNet.input_layer),
    "diffusers": Family(_diffusers, JPEG(5), Markov(), input_layer=DiffusersUNet.input_layer),
}


@dataclass(frozen=True)
class Budget:
    """Of trainings and measurements.

    measured: images that are answered and walked, for distances.  refits: longest refit of a gap, in updates.
    """

    teacher_updates: int = 1000
    student_updates: int = 600
    batch: int = 32
    fake_updates: int = 2
    rate: float = 3e-4
    measured: int = 640
    refits: int = 1000
    every: int = 50
    precision: Precision = "auto"


class FamilyRun:
    """One family: its teacher, students of one call and a few, and how far each is from the teacher's long walk.

    Args:
        name: of a family in `FAMILIES`.
        images, others: to learn from, and to measure on; of one side, and with classes.
        folder: where finished parts are kept.

    Raises:
        ValueError: no such family; a folder that holds the work of other settings.
    """

    def __init__(self, name: str, images: Images, others: Images, budget: Budget, folder: Path, seed: int = 0) -> None:
        if name not in FAMILIES:
            raise ValueError(f"no family is called {name!r}; expected one of {', '.join(FAMILIES)}")
        self.name, self.family, self.budget, self.seed = name, FAMILIES[name], budget, seed
        self.folder = folder / name.replace(", ", "-").replace(" ", "-")
        trained = replace(budget, measured=0, refits=0)  # which may be others the next time
        about = {"budget": repr(trained), "family": repr(self.family.corruption), "images": len(images)}
        claim(self.folder, about | {"bridge": repr(self.family.model().bridge)})
        coupling = Labelled if self.family.labels else Corrupted
        self.pairs = coupling(Mirrored(images), self.family.corruption)
        first = torch.Generator().manual_seed(seed + 7)
        self.clean, source = coupling(others, self.family.corruption).draw(budget.measured, first)
        self.measured = Source.of(source)
        self.classifier = load_classifier(CIFAR10.weights)
        self.device = best_device()
        self.precision = chosen_precision(budget.precision, self.device)

    def teacher(self) -> BridgeModel:
        """The family's model, trained by bridge matching."""
        budget = self.budget
        torch.manual_seed(self.seed)
        settings = Settings(
            1e-3,
            betas=(0.9, 0.99),
            average=0.995,
            decay=budget.teacher_updates,
            seed=self.seed,
            precision=self.precision,
        )
        run = TeacherTraining(self.family.model(), settings, device=self.device)
        stream = Draws(self.pairs.draw, budget.batch, self.seed)
        in_legs(run, stream, [budget.teacher_updates], self.folder / "teacher", dict, every=budget.every)
        return run.teacher

    def fresh(self, teacher: BridgeModel, steps: int) -> Student:
        """A student that is not distilled yet."""
        torch.manual_seed(self.seed)
        own = self.family
        return Student.of(teacher, steps=steps, noise_channels=own.noise_channels, input_layer=own.input_layer)

    def student(self, teacher: BridgeModel, steps: int) -> Student:
        """A student of so many calls, from sources alone."""
        return self.distilled(teacher, self.fresh(teacher, steps), f"student-{steps}")

    def distilled(
        self,
        teacher: BridgeModel,
        student: Student,
        part: str,
        fake: BridgeModel | None = None,
        loss: Callable[..., Losses] = ibmd_loss,
    ) -> Student:
        """The student, distilled; kept as that part of the folder."""
        budget = self.budget
        shared: dict[str, Any] = {
            "betas": (0.0, 0.999),
            "seed": self.seed,
            "decay": budget.student_updates,
            "precision": self.precision,
        }
        settings = DistillationSettings(
            generator=Settings(budget.rate, average=0.98, **shared),
            fake=Settings(2 * budget.rate, average=None, **shared),
            fake_updates=budget.fake_updates,
            weight=teacher.output_weight,
            loss=loss,
            rollout=self.family.rollout,
        )
        run = Distillation(teacher, student, fake=fake, settings=settings, device=self.device)
        stream = Draws(self.pairs.sources, budget.batch, self.seed + 1)
        in_legs(run, stream, [budget.student_updates], self.folder / part, dict, every=budget.every)
        return run.student

    def rows(self) -> list[dict[str, Any]]:
        """One row for each student: distances to the teacher's long walk, and refitted gaps; kept, and found again."""
        data = self._kept(f"data-{self.budget.measured}-{self.budget.refits}", self._of_data)
        again = self._kept(f"again-{self.budget.measured}", self._measured_again)
        return [row | data | more for row, more in zip(self._rows_of_students(), again, strict=True)]

    def _kept(self, part: str, made: Callable[[], Any]) -> Any:
        path = self.folder / f"{part}.json"
        if not path.exists():
            write_json(path, made())
        return json.loads(path.read_text())

    def _of_data(self) -> dict[str, float]:
        found = self.gap_of_data(self.teacher())
        return {"gap of the data": found.gap, "lag of the data": found.lag}

    def _measured_again(self) -> list[dict[str, Any]]:
        """For each student: more draws of its answers and of the walk, from each other and from the clean images."""
        teacher = self.teacher()
        walks = [self.walk(teacher, self.family.grid(teacher.bridge), self.family.walk, seed)[0] for seed in AGAIN]
        clean = self.features(self.clean)
        found: list[dict[str, Any]] = []
        for steps in self.family.steps:
            student = self.student(teacher, steps)
            answers = [self.answers(student, seed) for seed in AGAIN]
            found.append(
                {
                    "student, more draws": [*map(frechet_distance, answers, walks)],
                    "student to clean": [frechet_distance(each, clean) for each in answers],
                    "walk to clean": [frechet_distance(each, clean) for each in walks],
                }
            )
        return found

    def _rows_of_students(self) -> list[dict[str, Any]]:
        kept = self.folder / f"rows-{self.budget.measured}-{self.budget.refits}.json"
        rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
        if len(rows) == len(self.family.steps):
            return rows
        teacher = self.teacher()
        grid, step = self.family.grid(teacher.bridge), self.family.walk
        walked, again = (self.walk(teacher, grid, step, seed) for seed in (1, 2))
        for steps in self.family.steps[len(rows) :]:
            student = self.student(teacher, steps)
            one_call = Markov() if isinstance(step, Hybrid) else step  # Heun's rule takes two calls a step
            short = self.walk(teacher, teacher.bridge.grid(steps), one_call, 3)
            before, after = (self.gap(teacher, each) for each in (self.fresh(teacher, steps), student))
            rows.append(
                {
                    "family": self.name,
                    "task": repr(self.family.corruption),
                    "NFE of the walk": walked[1],
                    "NFE": steps,
                    "floor": frechet_distance(again[0], walked[0]),
                    "teacher": frechet_distance(short[0], walked[0]),
                    "student": frechet_distance(self.answers(student), walked[0]),
                    "gap before": before.gap,
                    "lag before": before.lag,
                    "gap": after.gap,
                    "lag": after.lag,
                }
            )
            write_json(kept, rows)
        return rows

    @torch.no_grad()
    def walk(
        self, teacher: BridgeModel, grid: Tensor, step: Step, seed: int
    ) -> tuple[Float[Tensor, "n features"], int]:
        """Features of the teacher's answers, and the calls that they took; grid is (times,)."""
        generator = torch.Generator(self.device).manual_seed(self.seed + seed)
        with self.autocast():
            done = [sample(teacher, batch, grid, step, generator=generator) for batch in self.batches()]
        return self.features(torch.cat([each.x0 for each in done])), done[0].nfe

    @torch.no_grad()
    def answers(self, student: Student, seed: int = 4) -> Float[Tensor, "n features"]:
        """Features of the student's answers."""
        generator = torch.Generator(self.device).manual_seed(self.seed + seed)
        with self.autocast():
            done = [student(batch, generator=generator) for batch in self.batches()]
        return self.features(torch.cat(done))

    def autocast(self) -> torch.autocast:
        """The precision of the trainings."""
        dtype = getattr(torch, self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def features(self, x0: Tensor) -> Float[Tensor, "n features"]:
        """Of images (B, C, H, W) of any size, in the classifier's eyes."""
        x0 = x0.float().cpu().clamp(-1, 1)
        return self.classifier.features(functional.interpolate(x0, size=(JUDGED_AT, JUDGED_AT)))

    def gap(self, teacher: BridgeModel, student: Student) -> RefittedGap:
        """The refitted gap on images that no training saw, in units of the network's own output."""
        return self._refitted(teacher, student, self.pairs.sources, self.batches()[:HELD_OUT])

    def gap_of_data(self, teacher: BridgeModel) -> RefittedGap:
        """The same with the clean images in the student's place: what is left when the teacher alone is not exact."""
        clean = self.clean.split(BATCH)
        held_out = [Answered.by(*pair) for pair in zip(clean, self.batches(), strict=True)][:HELD_OUT]

        def draw(n: int, generator: torch.Generator) -> Answered:
            return Answered.by(*self.pairs.draw(n, generator))

        return self._refitted(teacher, Answered.truth, draw, held_out)

    def _refitted(
        self, teacher: BridgeModel, answer: Callable[..., Tensor], draw: Callable[..., Any], held_out: Sequence[Source]
    ) -> RefittedGap:
        budget = self.budget
        return refitted_gap(
            teacher,
            answer,  # type: ignore[arg-type]
            Draws(draw, budget.batch, self.seed + 2),
            held_out,
            settings=Settings(1e-3, betas=(0.9, 0.999), average=0.99, precision=self.precision, decay=budget.refits),
            weight=teacher.output_weight,
            every=min(100, budget.refits),
            longest=budget.refits,
        )

    def batches(self, size: int = BATCH) -> list[Source]:
        """The sources that are measured on."""
        parts = [slice(k, k + size) for k in range(0, len(self.measured.xT), size)]
        names = ("xT", "mask", "label")
        given = {name: getattr(self.measured, name) for name in names if getattr(self.measured, name) is not None}
        return [Source(**{name: value[rows] for name, value in given.items()}).to(self.device) for rows in parts]
