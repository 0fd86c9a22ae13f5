"""GPU-hours of the paper's distillations and of larger images, predicted: `python benchmarks/paper_cost.py`.

Networks and sides are those of the published teachers (``teachers.PUBLISHED``), batch, updates of the fake and devices
those of 2502.01362: 256, five (one for the inpainting DDBM), eight A100.  It reports 300 to 14,000 generator updates
and 12 to 48 hours over all its tasks together, so both ends are computed for each.  Below them I2SB's network where
nobody has trained it: at 512 and 1024 pixels, and on codes of an eighth of that side.  Operations are counted on the
meta device, where the largest takes no memory; what is assumed is the utilisation.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from report import keep

from ibmd_lite import experiments
from ibmd_lite.experiments.cost import A100, Setup
from ibmd_lite.teachers import ADM, PUBLISHED

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
        one = Setup.of(
            network,
            (case.channels, case.side, case.side),
            conditional=architecture.conditional,
            input_layer=ADM.input_layer,
            batch=arguments.batch,
            updates=1,
            fake_updates=case.fake_updates,
        )
        hours = one.on(accelerator).hours
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
        rows.append(row | {f"updates in {limit} h": round(limit / hours) for limit in HOURS})
    keep("paper-cost", rows, STORED, **vars(arguments), accelerator=A100.name, peak=A100.peak)


if __name__ == "__main__":
    main()
