"""The picture on the book's first page: `python benchmarks/landing.py`.

Holes in photographs that no training saw, filled by the page's teacher (a walk of a hundred network calls) and by its
student (one call).  Writes the picture, in a form for wide pages and one for phones, and a sentence with the times that
were measured.  Networks and photographs are those of `book/_assets/students`; a quarter of a minute on one core.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from report import keep
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.bridges import ContinuousI2SB
from ibmd_lite.data import BrushStrokes, Inpainting, held_out_region
from ibmd_lite.data.decoding import as_bytes, to_unit
from ibmd_lite.display.figures import COLOURS, style
from ibmd_lite.export import OnnxModel
from ibmd_lite.model import X0, BridgeModel, Source
from ibmd_lite.sampling import sample
from ibmd_lite.training.files import writing

ASSETS = Path(__file__).resolve().parents[1] / "book" / "_assets"
STUDENTS, FOLDER = ASSETS / "students", ASSETS / "landing"
PHOTOGRAPHS = ("cat", "coffee", "flower")
CALLS = 100
SHOWN = (25, 50, 75)  # calls of the walk after which its state is shown


class Called(nn.Module):
    """The teacher's file as a network that predicts x0; `X0` tells it 1000 t."""

    def __init__(self, file: OnnxModel) -> None:
        super().__init__()
        self.file = file

    def forward(self, xt: Tensor, time: Tensor) -> Tensor:
        return self.file(xt=xt, t=time / 1000)


def seconds(answer: Callable[[], object], times: int) -> float:
    """The median over several calls, after one that does not count."""
    answer()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        answer()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def picture(groups: Sequence[tuple[str, str, Sequence[Tensor]]], *, width: float, font: float = 10.5) -> bytes:
    """Groups of columns of pictures as a PNG: each group its title, the colour of the rule below it, its batches."""
    from matplotlib.figure import Figure

    style()
    rows, gap, between = len(groups[0][2][0]), 0.08, 0.3
    count = sum(len(batches) for *_, batches in groups)
    side = (width - between * (len(groups) - 1) - gap * (count - len(groups))) / count
    top = 4.2 * font / 72
    height = rows * side + (rows - 1) * gap + top
    fig = Figure(figsize=(width, height), layout="none")
    left = 0.0
    for title, colour, batches in groups:
        span = len(batches) * (side + gap) - gap
        fig.text(left / width, 1 - 0.36 * top / height, title, fontsize=font, va="center", linespacing=1.15)
        line = fig.add_axes((left / width, 1 - 0.82 * top / height, span / width, 0.06 * top / height))
        line.set_facecolor(colour)
        line.set(xticks=[], yticks=[])
        line.spines[:].set_visible(False)
        for batch in batches:
            for row, image in enumerate(batch):
                below = (rows - 1 - row) * (side + gap)
                axis = fig.add_axes((left / width, below / height, side / width, side / height))
                axis.imshow(as_bytes(image).permute(1, 2, 0).numpy())
                axis.set_axis_off()
            left += side + gap
        left += between - gap
    drawn = io.BytesIO()
    fig.savefig(drawn, dpi=160)
    return drawn.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--times", type=int, default=5, help="walks to take the median over; ten times as many calls")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    regions = torch.stack([held_out_region(name) for name in PHOTOGRAPHS])
    x0 = to_unit(as_bytes(functional.avg_pool2d(regions, 2)))
    generator = torch.Generator().manual_seed(5)
    source = Source.of(Inpainting(BrushStrokes(least=0.04, most=0.16, strokes=3))(x0, generator))
    bridge = ContinuousI2SB(0.3)
    teacher = BridgeModel(Called(OnnxModel.read(STUDENTS / "paint-teacher.onnx")), bridge, prediction=X0())
    student = OnnxModel.read(STUDENTS / "paint-student.onnx")
    given = {"xT": source.xT, "mask": source.mask, "z": torch.randn(x0.shape, generator=generator)}
    inputs = {name: given[name] for name in student.about["inputs"]}
    walked = sample(teacher, source, bridge.grid(CALLS), generator=generator, keep_states=True)
    answered = student(**inputs)

    one = Source(source.xT[:1], None if source.mask is None else source.mask[:1])
    walk = seconds(lambda: sample(teacher, one, bridge.grid(CALLS), generator=generator), arguments.times)
    call = seconds(lambda: student(**{name: value[:1] for name, value in inputs.items()}), 10 * arguments.times)
    rows: list[dict[str, object]] = [
        {"who": "teacher", "calls": CALLS, "ms": 1000 * walk},
        {"who": "student", "calls": 1, "ms": 1000 * call},
    ]
    keep("landing", rows, photographs=PHOTOGRAPHS, times=arguments.times)

    long, short = f"{walk:.1f} s", f"{1000 * call:.0f} ms"
    states = [walked.states[calls] for calls in SHOWN]
    two = slice(0, 2)
    wide = [
        ("What is given", COLOURS["source"], [source.xT[two]]),
        (f"The teacher fills the hole in {CALLS} calls: {long}", COLOURS["teacher"],
         [*(state[two] for state in states), walked.x0[two]]),
        ("The student,\nin one: " + short, COLOURS["student"], [answered[two]]),
    ]  # fmt: skip
    narrow = [
        ("Given", COLOURS["source"], [source.xT]),
        (f"Teacher,\n{CALLS} calls: {long}", COLOURS["teacher"], [walked.x0]),
        ("Student,\none call: " + short, COLOURS["student"], [answered]),
    ]
    FOLDER.mkdir(exist_ok=True)
    for name, groups, width in (("wide", wide, 7.2), ("phone", narrow, 3.9)):
        with writing(FOLDER / f"{name}.png") as temporary:
            temporary.write_bytes(picture(groups, width=width))
    with writing(FOLDER / "times.md") as temporary:
        took = f"For one image of 64 x 64 pixels the teacher took {long} and the student {short}"
        temporary.write_text(
            f"{took}, about {round(walk / call, -1):.0f} times less, on one core of a busy server.\n", "utf8"
        )


if __name__ == "__main__":
    main()
