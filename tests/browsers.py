"""Chromium, where this machine has one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def open_in_browser(address: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium, with its profile in ``folder``; skip the test where there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("there is no Chromium here")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    return subprocess.run([*command, *words, address], capture_output=True, text=True, timeout=120)
