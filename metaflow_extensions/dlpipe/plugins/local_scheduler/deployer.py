"""``Deployer("flow.py").local_scheduler(...)``: the Python side of the commands."""

from __future__ import annotations

from typing import Any, ClassVar

from metaflow.runner.deployer_impl import DeployerImpl  # all that can be imported while Metaflow loads its plugins


class LocalSchedulerDeployer(DeployerImpl):
    """Deploy a flow to dlpipe's scheduler for one machine.

    Parameters
    ----------
    name : str, optional
        Name of the deployment; that of the flow if it is not given.
    """

    TYPE: ClassVar[str | None] = "local-scheduler"

    def __init__(self, deployer_kwargs: dict[str, Any], **more: Any) -> None:
        self._deployer_kwargs = deployer_kwargs
        super().__init__(**more)

    @property
    def deployer_kwargs(self) -> dict[str, Any]:
        """Return the options of the group."""
        return self._deployer_kwargs

    @staticmethod
    def deployed_flow_type() -> type:
        """Return what ``create`` returns."""
        from .deployer_objects import LocalSchedulerDeployedFlow

        return LocalSchedulerDeployedFlow

    def create(self, **options: Any) -> Any:
        """Deploy the flow; options are those of ``local-scheduler create``, and the flow's parameters.

        Returns
        -------
        LocalSchedulerDeployedFlow
            The deployment.
        """
        return self._create(self.deployed_flow_type(), **options)
