"""One notebook, many parameters: what a sweep's YAML file says, checked before anything runs.

The file names the notebook (looked for beside the file and in the folders above it), its fixed parameters, a grid or
named cases, the seeds, and the minutes that a run may take.  ``book/_sweeps`` has examples;
`python -m ibmd_lite.experiments run FILE` runs them.
Imports its neighbours ``reading``, ``parameters`` and ``runs``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibmd_lite.experiments.parameters import check, declared
from ibmd_lite.experiments.reading import yaml_of
from ibmd_lite.experiments.runs import Run, code_of, commit_of

__all__ = ["Sweep"]

KEYS = ("notebook", "parameters", "grid", "cases", "seeds", "minutes")


@dataclass(frozen=True)
class Sweep:
    """A notebook and what varies: the grid's points, or the cases by name, times the seeds.

    A run whose cells take longer than ``minutes`` together is ended, as one that hangs; None is no limit.

    Raises:
        ValueError: a parameter that the notebook has not, or that is given in two places, an empty list, two runs with
            the same parameters, a case's name that is no text, minutes that are no positive number.
        TypeError: a value of another type than the notebook's own.
    """

    name: str
    notebook: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, list[Any]] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    seeds: tuple[int, ...] = ()
    minutes: float | None = None

    def __post_init__(self) -> None:
        limit = self.minutes
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise ValueError(f"{self.name}: minutes is {limit!r}; expected how long one run may take, such as 30")
        if wrong := [name for name in self.named if not isinstance(name, str)]:
            raise ValueError(f"{self.name}: a case's name is {wrong[0]!r}; expected text: put it in quotes")
        if "case" in self.grid:
            raise ValueError(f"{self.name}: the grid has `case`, which is for the names of cases; list them in cases")
        self._check_places()
        known = declared(self.notebook)
        defaults = {name: each.default for name, each in known.items()}
        seen: dict[str, dict[str, Any]] = {}
        for case in self.cases:
            given = self.parameters_of(case)
            check(self.notebook, known, given)
            words = json.dumps(defaults | given, sort_keys=True)
            if words in seen:
                raise ValueError(f"{self.name}: {seen[words]} and {case} have the same parameters; leave one out")
            seen[words] = case
        if not seen:
            raise ValueError(f"{self.name} has no run; every list of the grid needs at least one value")

    def _check_places(self) -> None:
        """Refuse a parameter that is given twice.  A case may change what is fixed: that is what cases are for."""
        of_cases = {name for case in self.named.values() for name in case}
        places = {"parameters": set(self.parameters), "grid": set(self.grid), "cases": of_cases}
        places |= {"seeds": {"seed"} if self.seeds else set()}
        for one, other in itertools.combinations(places, 2):
            both = sorted(map(str, places[one] & places[other]))
            if both and (one, other) != ("parameters", "cases"):
                raise ValueError(f"{self.name}: {both} in {one} and in {other}; give each in one of the two")

    @classmethod
    def read(cls, file: Path) -> Sweep:
        """What a YAML file says; ``ValueError`` for a file that is not there or has other entries than a sweep's."""
        if not file.is_file():
            known = sorted(path.stem for path in file.parent.glob("*.yaml"))
            raise ValueError(f"there is no sweep {file}; known there: {', '.join(known) or 'none'}")
        text = yaml_of(file.read_bytes(), str(file))
        if not isinstance(text, dict) or not isinstance(text.get("notebook"), str):
            raise ValueError(f"{file.name} must name its notebook; its entries are {', '.join(KEYS)}")
        if extra := sorted(map(str, text.keys() - set(KEYS))):
            raise ValueError(f"{file.name} has unknown keys {extra}; expected {', '.join(KEYS)}")
        parameters, grid, seeds = text.get("parameters", {}), text.get("grid", {}), text.get("seeds", [None])
        cases = text.get("cases", {"": {}})
        if not isinstance(parameters, dict) or not isinstance(grid, dict):
            raise ValueError(f"{file.name}: parameters and grid must be names with values, {{}} for none")
        if not all(isinstance(values, list) and values for values in [seeds, *grid.values()]):
            raise ValueError(f"{file.name}: seeds and every entry of grid must be lists with at least one value")
        if not isinstance(cases, dict) or not cases or not all(isinstance(case, dict) for case in cases.values()):
            raise ValueError(f"{file.name}: cases must be names with parameters each, {{}} for none")
        if "" in cases and "cases" in text:
            raise ValueError(f"{file.name}: a case's name is ''; expected text with at least one letter")
        places = [folder / text["notebook"] for folder in file.resolve().parents]
        notebook = next((path for path in places if path.is_file()), None)
        if notebook is None:
            raise ValueError(f"{file.name}: there is no {text['notebook']} beside it or in a folder above it")
        seeds = tuple(seeds) if "seeds" in text else ()
        return cls(file.stem, notebook, parameters, grid, cases, seeds, text.get("minutes"))

    @property
    def cases(self) -> list[dict[str, Any]]:
        """What varies from run to run."""
        points = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        names = [{"case": name} if name else {} for name in self.named]
        seeds = [{"seed": seed} for seed in self.seeds] or [{}]
        return [name | point | seed for name in names for point in points for seed in seeds]

    def parameters_of(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """What the notebook is given for one of ``cases``."""
        varied = {key: value for key, value in case.items() if key != "case"}
        return {**self.parameters, **self.named[case.get("case", "")], **varied}

    def runs(self, out: Path) -> list[Run]:
        """Every run, with its folder below ``out``: one for each state of the code and each set of parameters."""
        code, commit = code_of(self.notebook), commit_of(self.notebook.parent)
        defaults = {name: each.default for name, each in declared(self.notebook).items() if each.known}
        folder = out.resolve() / self.name
        return [
            Run.within(
                folder,
                self.notebook,
                self.parameters_of(case),
                case=case,
                defaults=defaults,
                code=code,
                commit=commit,
                minutes=self.minutes,
            )
            for case in self.cases
        ]
