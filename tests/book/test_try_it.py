"""The page in which the student answers, in a real Chromium: its numbers are Python's, and nobody is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from links import ROOT
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ibmd_lite.bridges import VP, Bridge, Brownian, ContinuousI2SB
from ibmd_lite.data import JPEG, BrushStrokes, Inpainting, Sketch, held_out_region
from ibmd_lite.data.corruptions import Corruption
from ibmd_lite.data.decoding import as_bytes, to_unit
from ibmd_lite.data.photographs import NAMES
from ibmd_lite.export import OnnxModel
from ibmd_lite.model import X0, BridgeModel, Source
from ibmd_lite.sampling import sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

STUDENTS = ROOT / "book" / "_assets" / "students"
ADDRESS = "book/teachers/try-it.html"
PHONE, WIDE = (390, 844), (1280, 900)
TASKS: dict[str, tuple[Corruption, Bridge]] = {
    "paint": (Inpainting(BrushStrokes()), ContinuousI2SB(0.3)),
    "jpeg": (JPEG(10), Brownian(0.02)),
    "sketch": (Sketch(), VP()),
}


@contextmanager
def opened(browser: Browser, address: str, size: tuple[int, int] = WIDE, **settings: Any) -> Iterator[Page]:
    """The page, furnished; at the end no error and no request to elsewhere must have been seen."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **settings)
    page = context.new_page()
    home = (address.removesuffix(ADDRESS), "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(home) else faults.append(asked.url))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.wait_for_function("window.tryIt && window.tryIt.furnished.then(() => true)")
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="module")
def page(browser: Browser, site: str) -> Iterator[Page]:
    """One page for all tests that only compute."""
    with opened(browser, f"{site}/{ADDRESS}") as page:
        yield page


@pytest.fixture(scope="module")
def x0() -> Tensor:
    """The photographs of the page, whole numbers of 0 to 255 as there."""
    return to_unit(as_bytes(functional.avg_pool2d(torch.stack([held_out_region(name) for name in NAMES]), 2)))


def computed(page: Page, expression: str, **given: Any) -> Tensor:
    """What ``expression`` of the page's script makes of tensors (as arrays of its kind) and plain values."""
    tensors = [name for name, value in given.items() if isinstance(value, Tensor)]
    plain = {name: value.flatten().tolist() if name in tensors else value for name, value in given.items()}
    made = "".join(f"given.{name} = Float32Array.from(given.{name});" for name in tensors)
    return torch.tensor(page.evaluate(f"async (given) => {{ {made} return Array.from(await ({expression})); }}", plain))


def source_of(task: str, x0: Tensor) -> Source:
    return Source.of(TASKS[task][0](x0, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("quality", [5, 8, 23, 40, 60])
def test_jpeg_is_pillows(page: Page, x0: Tensor, quality: int) -> None:
    expected = JPEG(quality)(x0)
    found = torch.stack([computed(page, "tryIt.jpeg(given.x0, given.quality)", x0=x, quality=quality) for x in x0])
    assert torch.equal(((found.view_as(expected) + 1) * 127.5).round(), ((expected + 1) * 127.5).round())


def test_the_sketch_is_the_packages(page: Page, x0: Tensor) -> None:
    found = torch.stack([computed(page, "tryIt.sketch(given.x0)", x0=x) for x in x0])
    torch.testing.assert_close(found.view(len(x0), 64, 64), Sketch()(x0)[:, 0], atol=1e-5, rtol=0)


def test_noise_is_normal_and_repeats(page: Page) -> None:
    one, again, other = (computed(page, "tryIt.normals(given.seed, 12288)", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.03
    for noise in (one, other):
        assert abs(noise.mean()) < 0.03
        assert abs(noise.std() - 1) < 0.03
        assert abs(noise.pow(4).mean() - 3) < 0.3


@pytest.mark.parametrize("task", TASKS)
def test_the_student_answers_as_in_python(page: Page, x0: Tensor, task: str) -> None:
    student = OnnxModel.read(STUDENTS / f"{task}-student.onnx")
    source = source_of(task, x0[1:2])
    inputs = {"xT": source.xT, "mask": source.mask, "z": torch.randn(1, 3, 64, 64, generator=torch.Generator())}
    taken = {name: inputs[name] for name in student.about["inputs"]}
    found = computed(page, f"tryIt.student('{task}', given)", **taken)
    expected = student(**taken)
    assert (found.view_as(expected) - expected).abs().max() < 1e-3
    assert (expected - source.xT).abs().mean() > 1e-3, "the student does something"


class _Called(nn.Module):
    """A teacher's file as a network that predicts x0; `X0` tells it 1000 t."""

    def __init__(self, file: OnnxModel) -> None:
        super().__init__()
        self.file = file

    def forward(self, xt: Tensor, time: Tensor, xT: Tensor | None = None) -> Tensor:
        return self.file(xt=xt, t=time / 1000, **({} if xT is None else {"xT": xT}))


@pytest.mark.parametrize("task", TASKS)
def test_the_teacher_walks_as_in_python(page: Page, x0: Tensor, task: str) -> None:
    source, bridge = source_of(task, x0[2:3]), TASKS[task][1]
    file, grid = OnnxModel.read(STUDENTS / f"{task}-teacher.onnx"), TASKS[task][1].grid(4)
    model = BridgeModel(_Called(file), bridge, conditional="xT" in file.about["inputs"], prediction=X0())
    noise = torch.randn(3, 1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = sample(model, source, grid, noise=noise).x0
    steps = [[t.item(), *(weight.item() for weight in bridge.posterior(t, s))] for t, s in pairwise(grid)]
    walk = """(async () => {
        const source = { xT: given.xT, mask: given.mask };
        const noise = (step) => given.noise.slice(step * 12288, (step + 1) * 12288);
        let last = null;
        for await (const xt of tryIt.walk(given.task, source, given.steps, noise)) last = xt;
        return last;
    })()"""
    masked = {} if source.mask is None else {"mask": source.mask}
    found = computed(page, walk, xT=source.xT, noise=noise, task=task, steps=steps, **masked)
    assert (found.view_as(expected) - expected).abs().max() < 1e-3


def test_the_pages_steps_are_the_bridges(page: Page) -> None:
    walks = page.evaluate("tryIt.about().then(facts => facts.walks)")
    for task, (_, bridge) in TASKS.items():
        intervals = list(pairwise(bridge.grid(100)))
        expected = [[t.item(), *(weight.item() for weight in bridge.posterior(t, s))] for t, s in intervals]
        expected[-1][3] = 0.0
        torch.testing.assert_close(torch.tensor(walks[task]), torch.tensor(expected))


def answered(page: Page) -> None:
    page.wait_for_function("/student answered/.test(document.querySelector('#try-it-page [role=status]').textContent)")


def seen(page: Page, panel: str) -> list[int]:
    """The pixels of a panel."""
    return page.evaluate(
        "name => Array.from(document.querySelector(`[data-panel=${name}] canvas`).getContext('2d')"
        ".getImageData(0, 0, 64, 64).data)",
        panel,
    )


def test_the_keyboard_is_enough(browser: Browser, site: str) -> None:
    """Start, paint a hole, see it answered, let the teacher walk and stop it: without a pointer."""
    with opened(browser, f"{site}/{ADDRESS}") as page:

        def tab_to(selector: str) -> None:
            for _ in range(60):
                if page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                    return
                page.keyboard.press("Tab")
            pytest.fail(f"no way to {selector} with the Tab key")

        page.locator("[name=picture]").focus()
        tab_to("[data-do=start]")
        page.keyboard.press("Enter")
        answered(page)
        whole = seen(page, "given")
        tab_to("[data-panel=given] canvas")
        assert page.locator(".try-it-cursor").is_visible()
        page.keyboard.press("Shift+ArrowUp")
        page.keyboard.down(" ")
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        holed = seen(page, "given")
        page.keyboard.up(" ")
        assert holed != whole
        assert sum(one != other for one, other in zip(whole[::4], holed[::4], strict=True)) > 60
        page.wait_for_function("before => JSON.stringify(before) !== JSON.stringify(Array.from(document"
                               ".querySelector('[data-panel=student] canvas').getContext('2d')"
                               ".getImageData(0, 0, 64, 64).data))", arg=whole)  # fmt: skip
        page.locator("[data-do=again]").focus()
        tab_to("[data-do=walk]")
        page.keyboard.press("Enter")
        page.wait_for_function("/call [1-9]/.test(document.querySelector('[data-panel=teacher]').textContent)")
        assert page.evaluate("document.activeElement.dataset.do") == "stop"
        page.keyboard.press("Enter")
        page.wait_for_function("/was stopped/.test(document.querySelector('#try-it-page [role=status]').textContent)")
        assert page.evaluate("document.activeElement.dataset.do") == "walk"


def test_a_finger_on_a_phone_paints(browser: Browser, site: str) -> None:
    with opened(browser, f"{site}/{ADDRESS}", PHONE, has_touch=True, is_mobile=True) as page:
        page.locator("[data-do=start]").tap()
        answered(page)
        whole = seen(page, "given")
        page.locator("[data-panel=given] canvas").tap()
        assert seen(page, "given") != whole
        for task in TASKS:
            page.locator(f"[value={task}]").check()
            answered(page)
            widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
            assert widths[0] <= widths[1]


# What every network is fed and answers from now on, beside what it does.
NOTE_CALLS = """() => {
    const { prototype } = window.ort.InferenceSession;
    const run = prototype.run;
    prototype.run = async function (feeds) {
        const fed = Object.fromEntries(Object.entries(feeds).map(([name, tensor]) => [name, tensor.data.slice()]));
        const answers = await run.call(this, feeds);
        window.calls.push({ fed, answer: answers[this.outputNames[0]].data.slice() });
        return answers;
    };
}"""
# Whether the panels show what the last call was fed and answered, in whole numbers.
SHOWN = """() => {
    const shows = (panel, image) => {
        const context = document.querySelector(`[data-panel=${panel}] canvas`).getContext("2d");
        const { data } = context.getImageData(0, 0, 64, 64);
        const byte = (value) => Math.round(Math.min(255, Math.max(0, (value + 1) * 127.5)));
        return image.every((value, i) => data[4 * (i % 4096) + Math.floor(i / 4096)] === byte(value));
    };
    const last = window.calls.at(-1);
    return last && shows("given", last.fed.xT) && shows("student", last.answer);
}"""
CALL = """which => {
    const { fed, answer } = window.calls.at(which);
    const plain = Object.entries({ ...fed, answer }).map(([name, values]) => [name, Array.from(values)]);
    return Object.fromEntries(plain);
}"""


def started(page: Page) -> Page:
    page.locator("[data-do=start]").click()
    answered(page)
    page.evaluate(NOTE_CALLS)
    return page


@pytest.fixture(scope="module")
def ready(browser: Browser, site: str) -> Iterator[Page]:
    """One page whose student has been started, for all tests that have a mouse."""
    with opened(browser, f"{site}/{ADDRESS}") as page:
        yield started(page)


def noted(page: Page, which: int = -1) -> dict[str, Tensor]:
    """What a network was fed, and its answer."""
    values = {name: torch.tensor(plain, dtype=torch.float32) for name, plain in page.evaluate(CALL, which).items()}
    return {name: x if len(x) == 1 else x.view(1, -1, 64, 64) for name, x in values.items()}


def choose(page: Page, task: str) -> None:
    """The task, and wait for the student's answer to it."""
    if not page.locator(f"[value={task}]").is_checked():
        page.evaluate("window.calls = []")
        page.locator(f"[value={task}]").check()
        page.wait_for_function(SHOWN)


@contextmanager
def answered_anew(page: Page, task: str) -> Iterator[dict[str, Tensor]]:
    """What is done inside must change the answer, and it must be what Python's student makes of the panel's image."""
    choose(page, task)
    before = seen(page, "student")
    page.evaluate("window.calls = []")
    call: dict[str, Tensor] = {}
    yield call
    page.wait_for_function(SHOWN)
    call |= noted(page)
    assert seen(page, "student") != before
    answer = call.pop("answer")
    expected = OnnxModel.read(STUDENTS / f"{task}-student.onnx")(**call)
    assert (answer - expected).abs().max() < 1e-3


Place = tuple[float, float]


def points(page: Page, *wanted: Place) -> tuple[list[Place], list[Place]]:
    """Whole points of the window near (row, column) of the canvas, and the rows and columns that they are."""
    canvas = page.locator("[data-panel=given] canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    sizes = [(box["x"], box["width"] / 64), (box["y"], box["height"] / 64)]
    there = [[round(low + (at + 0.5) * size) for at, (low, size) in zip(p[::-1], sizes, strict=True)] for p in wanted]
    places = [[(at - low) / size - 0.5 for at, (low, size) in zip(p, sizes, strict=True)][::-1] for p in there]
    return [(x, y) for x, y in there], [(row, column) for row, column in places]


def away(start: Place, end: Place) -> Tensor:
    """Of every pixel, how far it is from the line between two."""
    pixels = torch.cartesian_prod(torch.arange(64.0), torch.arange(64.0))
    one, step = torch.tensor(start), torch.tensor(end) - torch.tensor(start)
    part = ((pixels - one) @ step / step.square().sum()).clamp(0, 1)
    return (pixels - one - part[:, None] * step).norm(dim=1).view(64, 64)


def check_hole(call: dict[str, Tensor], x0: Tensor, start: Place, end: Place) -> None:
    """As broad as the brush's six pixels along the whole stroke, and nowhere else; the rest is the photograph."""
    distance, hole = away(start, end), call["mask"][0, 0] > 0
    assert hole[distance < 2.99].all()
    assert not hole[distance > 3.01].any()
    torch.testing.assert_close(call["xT"][0][:, ~hole], x0[0][:, ~hole])


def drag(page: Page, start: Place, end: Place) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=5)
    page.mouse.up()


def test_a_mouse_paints_a_hole(ready: Page, x0: Tensor) -> None:
    with answered_anew(ready, "paint") as call:
        there, places = points(ready, (20, 10), (44, 50))
        drag(ready, *there)
    check_hole(call, x0, *places)


def test_a_finger_paints_a_hole(browser: Browser, site: str, x0: Tensor) -> None:
    """Dragged down, where a page would scroll."""
    with opened(browser, f"{site}/{ADDRESS}", PHONE, has_touch=True, is_mobile=True) as page:
        with answered_anew(started(page), "paint") as call:
            (start, end), places = points(page, (12, 30), (52, 34))
            device = page.context.new_cdp_session(page)
            for part in range(11):
                kind = "touchMove" if part else "touchStart"
                x, y = (low + part / 10 * (high - low) for low, high in zip(start, end, strict=True))
                device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
            device.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        check_hole(call, x0, *places)


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_the_slider_sets_the_quality(ready: Page, x0: Tensor, by: str) -> None:
    with answered_anew(ready, "jpeg") as call:
        slider = ready.locator("[name=quality]")
        before = int(slider.input_value())
        if by == "mouse":
            slider.scroll_into_view_if_needed()
            box = slider.bounding_box()
            assert box is not None
            y, knob = box["y"] + box["height"] / 2, (before - 5) / 35 * (box["width"] - 16) + 8
            drag(ready, (box["x"] + knob, y), (box["x"] + 0.6 * box["width"], y))
        else:
            slider.focus()
            for _ in range(3):
                ready.keyboard.press("ArrowRight")
    quality = int(slider.input_value())
    assert quality == before + 3 if by == "keyboard" else 20 < quality < 32
    assert ready.locator("[data-tools] output").inner_text() == str(quality)
    torch.testing.assert_close(call["xT"][0], JPEG(quality)(x0[:1])[0], atol=1e-3, rtol=0)


def test_a_mouse_draws_a_line(ready: Page) -> None:
    with answered_anew(ready, "sketch"):
        ready.locator("[data-do=blank]").click()
    with answered_anew(ready, "sketch") as call:
        there, places = points(ready, (16, 12), (40, 52))
        drag(ready, *there)
    dark = torch.exp(-0.5 * (away(*places) / 0.8).square())
    torch.testing.assert_close(call["xT"][0], (1 - 2 * torch.tanh(1.5 * dark)).expand(3, 64, 64), atol=0.01, rtol=0)


def test_the_teacher_walks_all_its_hundred_calls(ready: Page) -> None:
    """Some of the hundred steps are made again in Python: the network's answer, and the state after it."""
    choose(ready, "jpeg")
    bridge = TASKS["jpeg"][1]
    ready.evaluate("window.calls = []")
    ready.locator("[data-do=walk]").click()
    ready.wait_for_function(
        "/answered in 100 calls/.test(document.querySelector('#try-it-page [role=status]').textContent)",
        timeout=120_000,
    )
    calls = [noted(ready, which) for which in range(-100, 0, 33)]
    assert ready.evaluate("window.calls.length") in (100, 101), "the first call of all is made once more, to load"
    times = ready.evaluate("window.calls.slice(-100).map(call => call.fed.t[0])")
    grid = bridge.grid(100).float()
    torch.testing.assert_close(torch.tensor(times), grid[:-1])
    teacher = OnnxModel.read(STUDENTS / "jpeg-teacher.onnx")
    for step, call in zip(range(0, 100, 33), calls, strict=True):
        answer = call.pop("answer")
        assert (answer - teacher(**call)).abs().max() < 1e-3
        weights = bridge.posterior(grid[step], grid[step + 1])
        if step == 99:
            final = weights[0] * call["xt"] + weights[1] * answer
            shown = torch.tensor(seen(ready, "teacher")).view(64, 64, 4)[..., :3].permute(2, 0, 1)
            assert ((final[0].clamp(-1, 1) + 1) * 127.5 - shown).abs().max() < 0.51
        else:
            noise = computed(ready, "tryIt.normals(given.seed, 12288)", seed=1000 + step).view_as(answer)
            after = weights[0] * call["xt"] + weights[1] * answer + weights[2] * noise
            torch.testing.assert_close(noted(ready, step - 99)["xt"], after, atol=1e-4, rtol=0)


def test_a_picture_of_ones_own(browser: Browser, site: str, tmp_path: Path) -> None:
    """Its middle is taken; what is no picture is refused, and neither the panel nor the name of a file claims it."""
    image = Image.new("RGB", (192, 64), (0, 0, 255))
    image.paste((255, 0, 0), (64, 0, 128, 64))
    image.save(tmp_path / "wide.png")
    (tmp_path / "words.png").write_text("no picture")
    with opened(browser, f"{site}/{ADDRESS}") as page:
        own = page.locator("input[type=file]")
        own.set_input_files(tmp_path / "wide.png")
        page.wait_for_function("document.querySelector('[name=picture]').value === 'own'")
        shown = torch.tensor(seen(page, "clean")).view(4096, 4)
        assert (shown == torch.tensor([255, 0, 0, 255])).all()
        own.set_input_files(tmp_path / "words.png")
        page.wait_for_function("/no picture/.test(document.querySelector('#try-it-page [role=status]').textContent)")
        assert own.input_value() == ""
        assert (torch.tensor(seen(page, "clean")).view(4096, 4) == shown).all()


def test_the_answers_stand_side_by_side(page: Page) -> None:
    """Student and teacher can be seen at once, beside what they were given."""
    boxes = [page.locator(f"[data-panel={name}] canvas").bounding_box() for name in ("given", "student", "teacher")]
    assert len({box["y"] for box in boxes if box}) == 1
    edges = [edge for box in boxes if box for edge in (box["x"], box["x"] + box["width"])]
    assert edges == sorted(edges)
    assert len(edges) == 6


def test_a_page_from_the_disk_answers_too(browser: Browser, pages: Path) -> None:
    """The book is promised to be readable by opening its first file."""
    with opened(browser, f"{pages.as_uri()}/{ADDRESS}") as page:
        page.locator("[value=sketch]").check()
        page.locator("[data-do=start]").click()
        answered(page)
        before = seen(page, "student")
        page.locator("[data-do=again]").click()
        page.wait_for_function("before => JSON.stringify(before) !== JSON.stringify(Array.from(document"
                               ".querySelector('[data-panel=student] canvas').getContext('2d')"
                               ".getImageData(0, 0, 64, 64).data))", arg=before)  # fmt: skip
        told = page.locator("#try-it-page [role=status]").inner_text()
        print(f"\n{told} (measured, not asserted)")
        assert re.search(r"answered in [\d.]+ m?s", told)


def test_the_runtime_loads_when_it_is_asked_for(browser: Browser, site: str) -> None:
    context = browser.new_context()
    loaded: list[str] = []
    page = context.new_page()
    page.on("request", lambda asked: loaded.append(asked.url))
    page.goto(f"{site}/{ADDRESS}", wait_until="networkidle")
    page.wait_for_function("window.tryIt.furnished.then(() => true)")
    assert not [url for url in loaded if "onnx" in url]
    page.goto(f"{site}/book/start/quickstart.html", wait_until="networkidle")
    assert not [url for url in loaded if "quickstart" in url and "try-it" in url]
    assert page.evaluate("window.tryIt") is None
    context.close()


def test_an_old_browser_is_told(browser: Browser, site: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("delete window.WebAssembly")
    page.goto(f"{site}/{ADDRESS}")
    page.wait_for_function("window.tryIt.furnished.then(() => true)")
    assert "WebAssembly" in page.locator("#try-it-page").inner_text()
    assert page.locator("img[src*=answers]").count() == 1
    context.close()


def test_the_networks_are_small() -> None:
    files = list(STUDENTS.glob("*.onnx"))
    assert len(files) == 6
    assert sum(path.stat().st_size for path in files) < 12e6
