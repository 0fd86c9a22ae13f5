"""What one call of the page's networks takes in a browser: `python benchmarks/page_seconds.py`.

Opens the built page (`make pages` first) in Chromium, from the disk as a reader would, and calls students and
teachers one by one.  The first call of each, which also loads it, stands apart.  The page includes the table.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from report import keep

from ibmd_lite.training.files import writing

SHOWN = Path(__file__).resolve().parents[1] / "book" / "_assets" / "students" / "seconds.md"
PAGE = Path(__file__).resolve().parents[1] / "_build" / "html" / "book" / "teachers" / "try-it.html"
TASKS = ("paint", "jpeg", "sketch")
CALLS = """async ([task, kind, calls]) => {
    const normals = tryIt.normals(0, 3 * 64 * 64);
    const inputs = { xT: normals, z: normals, mask: new Float32Array(64 * 64), xt: normals, t: Float32Array.of(0.5) };
    const spent = [];
    for (let call = 0; call <= calls; call++) {
        const began = performance.now();
        await tryIt.call(`${task}-${kind}`, inputs);
        spent.push(performance.now() - began);
    }
    return spent;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="path of the browser")
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(PAGE.as_uri())
        page.wait_for_function("window.tryIt && window.tryIt.furnished.then(() => true)")
        for task in TASKS:
            for kind in ("student", "teacher"):
                first, *spent = page.evaluate(CALLS, [task, kind, arguments.calls])
                fastest, middle = min(spent), statistics.median(spent)
                rows.append(
                    {"network": f"{task}-{kind}", "first ms": first, "median ms": middle, "fastest ms": fastest}
                )
        version = browser.version
        browser.close()
    stored = keep("page_seconds", rows, browser=f"Chromium {version}", calls=arguments.calls)
    with writing(SHOWN) as temporary:
        temporary.write_text(shown(json.loads(stored.read_text("utf8"))), "utf8")


def shown(stored: dict[str, Any]) -> str:
    """What the page says of the numbers."""
    about, rows = stored["about"], {row["network"]: row for row in stored["rows"]}
    lines = ["| task | student, ms | teacher, ms a call | a hundred calls, s |", "| --- | --- | --- | --- |"]
    for task in TASKS:
        student, teacher = (rows[f"{task}-{kind}"]["median ms"] for kind in ("student", "teacher"))
        lines.append(f"| {task} | {student:.0f} | {teacher:.0f} | {teacher / 10:.1f} |")
    first = max(row["first ms"] for row in rows.values()) / 1000
    machine = f"{about['browser']} on {about['cores']} cores ({about['system']})"
    told = (
        f"Medians of {about['calls']} calls in {machine}, on one thread. What is first called must be loaded as well: "
        f"the slowest of these first calls, the runtime's loading in it, took {first:.1f} s."
    )
    return "\n".join([*lines, "", told, ""])


if __name__ == "__main__":
    main()
