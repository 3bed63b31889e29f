"""MLflow in a flow as people write it today: one parent, opened again by every step."""

from __future__ import annotations

from metaflow import current


def parent() -> str:
    """Make the run that stands for the whole flow, and return its id."""
    import mlflow

    with mlflow.start_run(run_name=current.run_id) as run:
        return str(run.info.run_id)


def child(parent_id: str, share: float) -> None:
    """Open the parent again and log a number and a word to a run inside it."""
    import mlflow

    with mlflow.start_run(run_id=parent_id), mlflow.start_run(nested=True, run_name=current.step_name):
        mlflow.log_metric("share", share)
        mlflow.log_param("word", current.step_name)
