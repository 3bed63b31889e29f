"""The bridge as a decorator of a flow: ``from metaflow import mlflow_bridge``."""

from __future__ import annotations

from typing import Any

from metaflow.user_decorators.user_flow_decorator import FlowMutator


class mlflow_bridge(FlowMutator):
    """Mirror each run of the flow into MLflow while it goes; as ``--with mlflow_bridge``, but always."""

    def init(self, required: bool = False, resources: float = 0) -> None:
        """Take what the step decorator takes."""
        self._settings = {"required": required, "resources": resources}

    def mutate(self, mutable_flow: Any) -> None:
        """Attach the bridge to every step."""
        for _, step in mutable_flow.steps:
            step.add_decorator("mlflow_bridge", deco_kwargs=self._settings)
