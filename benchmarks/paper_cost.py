"""GPU-hours and memory of the paper's distillations and of larger images, predicted: `python benchmarks/paper_cost.py`.

Networks and sides are those of the published teachers (``teachers.PUBLISHED``), batch, updates of the fake and devices
those of 2502.01362: 256, five (one for the inpainting DDBM), eight A100.  It reports 300 to 14,000 generator updates
and 12 to 48 hours over all its tasks together, so both ends are computed for each.  Below them I2SB's network where
nobody has trained it: at 512 and 1024 pixels, and on codes of an eighth of that side.  Operations are counted on the
meta device, where the largest takes no memory; what is assumed is the utilisation.  Memory is of single precision
(four bytes a number), layers kept and recomputed: for one image on a device, and what every further one adds in a large
batch (of a small one the gradients take more than the layers).
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from report import keep

from ibmd_lite import experiments
from ibmd_lite.experiments.cost import A100, Memory, Setup
from ibmd_lite.teachers import ADM, PUBLISHED
from ibmd_lite.training.recomputing import recompute

STORED = Path(experiments.__file__).parent / "results"
UPDATES = (300, 14_000)
HOURS = (12, 48)


@dataclass(frozen=True)
class Case:
    """A teacher's network on images, or codes, of some channels and side."""

    teacher: str
    side: int
    fake_updates: int = 5
    channels: int = 3
    of: str = "paper"


CASES = (
    Case("i2sb-sr4x-bicubic", 256),
    Case("ddbm-diode", 256),
    Case("dbim-inpaint-center", 256, fake_updates=1),
    Case("ddbm-edges2handbags", 64),
    Case("i2sb-sr4x-bicubic", 512, of="pixels"),
    Case("i2sb-sr4x-bicubic", 1024, of="pixels"),
    Case("i2sb-sr4x-bicubic", 128, channels=4, of="codes of 1024"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--utilisation", type=float, default=A100.utilisation)
    parser.add_argument("--devices", type=int, default=8)
    arguments = parser.parse_args()
    accelerator = replace(A100, utilisation=arguments.utilisation, count=arguments.devices)
    rows = []
    for case in CASES:
        architecture = PUBLISHED[case.teacher].network
        with torch.device("meta"):
            network = ADM(replace(architecture, labels=0, channels=case.channels))  # a table of labels costs nothing
        shape = (case.channels, case.side, case.side)
        seen = {"conditional": architecture.conditional, "input_layer": ADM.input_layer}
        one = Setup.of(network, shape, batch=arguments.batch, updates=1, fake_updates=case.fake_updates, **seen)
        cost = one.on(accelerator)
        hours = cost.hours
        row: dict[str, object] = {
            "teacher": case.teacher,
            "of": case.of,
            "side": case.side,
            "weights M": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
            "pass TFLOP": one.teacher.forward / 1e12,
            "fake updates": case.fake_updates,
            "iteration PFLOP": one.iteration / 1e15,
            "s an iteration": 3600 * hours,
        }
        row |= {f"h for {updates}": updates * hours for updates in UPDATES}
        row |= {f"GPU-h for {updates}": updates * cost.gpu_hours for updates in UPDATES}
        row |= {f"updates in {limit} h": round(limit / hours) for limit in HOURS}
        rows.append(row | held(network, shape, **seen))
    keep("paper-cost", rows, STORED, **vars(arguments), accelerator=A100.name, peak=A100.peak, hours=HOURS)


def held(network: ADM, shape: tuple[int, int, int], **seen: Any) -> dict[str, float]:
    """GiB of an update of one image, and what an image more adds; in the end the network is recomputed."""
    row = {}
    for how in ("kept", "recomputed"):
        if how == "recomputed":
            recompute(network, ADM.blocks)
        one, eight, sixteen = (Memory.of(network, shape, batch=batch, **seen) for batch in (1, 8, 16))
        row[f"teacher GiB, {how}"] = one.teacher / 2**30
        row[f"distillation GiB, {how}"] = one.distillation / 2**30
        row[f"an image more GiB, {how}"] = (sixteen.distillation - eight.distillation) / 8 / 2**30
    return row


if __name__ == "__main__":
    main()
