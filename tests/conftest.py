"""What all tests share: threads, and a closing summary that gives each reason for a skip once."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

torch.set_num_threads(1)  # small tensors: a second thread mostly waits, and much longer on a busy machine


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per reason, however many tests it skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason}")
