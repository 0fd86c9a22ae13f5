"""The Quickstart over several seeds: `python benchmarks/quickstart.py`.

Runs the chapter itself with papermill, once a seed, and gathers the table it prints.  Each run is kept
under runs/quickstart; a seed whose run is there is not run again.
"""

import argparse
import json
import statistics
from pathlib import Path

import nbformat
import papermill
import torch
from report import keep

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "book" / "start" / "quickstart.ipynb"


def result_of(path: Path) -> dict:
    """What the chapter's cell tagged `result` printed."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if "result" in cell.metadata.get("tags", [])]
    return json.loads(cells[0].outputs[0].text)


def run(seed: int, threads: int) -> dict:
    path = ROOT / "runs" / "quickstart" / f"seed-{seed}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        unfinished = path.with_suffix(".part.ipynb")
        papermill.execute_notebook(
            str(CHAPTER), str(unfinished), {"seed": seed, "threads": threads}, cwd=str(CHAPTER.parent)
        )
        unfinished.replace(path)
    return result_of(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [run(seed, arguments.threads) for seed in arguments.seeds]
    rows: list[dict[str, object]] = []
    for name in results[0]["rows"]:
        row: dict[str, object] = {"method": name, "NFE": results[0]["rows"][name]["calls"]}
        for figure in ("FD", "PSNR", "diversity"):
            values = [result["rows"][name][figure] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row |= {figure: statistics.mean(values), f"{figure} s.d.": spread}
        rows.append(row)
    teacher, student = ([r["rows"][rows[k]["method"]] for r in results] for k in (-2, -1))
    ratios = {
        "FD, student over teacher": [s["FD"] / t["FD"] for s, t in zip(student, teacher, strict=True)],
        "diversity, student over teacher": [
            s["diversity"] / t["diversity"] for s, t in zip(student, teacher, strict=True)
        ],
        "time of a picture, teacher over student": [result["speed"] for result in results],
    }
    for name, values in ratios.items():
        print(f"{name}: {', '.join(f'{value:.3g}' for value in values)}")
    keep("quickstart", rows, seeds=arguments.seeds, ratios=ratios, minutes=[r["seconds"]["page"] / 60 for r in results])


if __name__ == "__main__":
    main()
