"""The credentials that MLflow takes from the environment."""

from __future__ import annotations

import os

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def suggest_credentials() -> str:
    """Return what to do about credentials that a server does not take."""
    there = [name for name in CREDENTIALS if os.environ.get(name)]
    if there:
        return f"Correct the credentials in {' and '.join(there)}, or have their rights changed."
    return f"Set {CREDENTIALS[0]} and {CREDENTIALS[1]}, or {CREDENTIALS[2]}."
