"""Says before a run begins that its datastore cannot be used, where Metaflow would try for minutes."""

from __future__ import annotations

from typing import Any

from metaflow.decorators import StepDecorator
from metaflow.exception import MetaflowException


class StorageMissing(MetaflowException):
    """The datastore on S3 does not answer, or refuses."""

    headline = "dlpipe cannot go on"


class StorageCheck(StepDecorator):
    """Look at the bucket of the datastore once, before the run begins; other datastores are left alone."""

    name = "storage_check"

    def step_init(
        self,
        flow: Any,
        graph: Any,
        step_name: str,
        decorators: Any,
        environment: Any,
        flow_datastore: Any,
        logger: Any,
    ) -> None:
        """Remember where the datastore is."""
        self._kind, self._root = flow_datastore.TYPE, flow_datastore.datastore_root

    def runtime_init(self, flow: Any, graph: Any, package: Any, run_id: str) -> None:
        """Look at the bucket."""
        from dlpipe.bridge import check_datastore
        from dlpipe.errors import DlpipeError

        try:
            check_datastore(self._kind, self._root)
        except DlpipeError as error:
            raise StorageMissing(str(error)) from None
