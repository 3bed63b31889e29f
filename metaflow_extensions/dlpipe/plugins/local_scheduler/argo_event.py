"""``from metaflow.integrations import ArgoEvent``: events that reach this machine's scheduler as they do Argo."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from metaflow.metaflow_config import ARGO_EVENTS_WEBHOOK_URL
from metaflow.plugins.argo.argo_events import ArgoEvent, ArgoEventException

from .decorator import FOLDER


class LocalArgoEvent(ArgoEvent):
    """Metaflow's event, which goes to dlpipe's scheduler where the run is not on Argo.

    On Argo, and with an address of one's own, it is Metaflow's. In runs of the local scheduler ``publish`` and
    ``safe_publish`` reach that scheduler. In runs by hand ``publish`` does, unless Metaflow is configured for Argo
    Events, and ``safe_publish`` publishes nothing, as Metaflow says.
    """

    def publish(
        self, payload: Mapping[str, Any] | None = None, force: bool = True, ignore_errors: bool = True
    ) -> str | None:
        """Publish the event and return its id; ``None`` when it was not, which is printed.

        Raises
        ------
        ArgoEventException
            When it cannot be published and errors are not to be ignored.
        """
        if not self._is_local() or not (force or FOLDER in os.environ):
            return super().publish(payload=payload, force=force, ignore_errors=ignore_errors)
        try:
            return self._publish_here({**self._payload, **(payload or {})})
        except Exception as error:  # as Metaflow's: whatever it is, the step goes on unless it asked to know
            message = f"Unable to publish the event {self._name}: {error}"
            if not ignore_errors:
                raise ArgoEventException(message) from error
            print(message, file=sys.stderr)
            return None

    def _is_local(self) -> bool:
        if os.environ.get("ARGO_WORKFLOW_TEMPLATE") or self._url != ARGO_EVENTS_WEBHOOK_URL:
            return False
        return FOLDER in os.environ or self._url is None

    def _publish_here(self, given: Mapping[str, Any]) -> str:
        from dlpipe.orchestrator.events import publish_event
        from dlpipe.orchestrator.state import State

        now, identity = time.time(), str(uuid.uuid4())
        payload = {
            "name": self._name,
            "id": identity,
            "timestamp": int(now),
            "utc_date": datetime.fromtimestamp(now, UTC).strftime("%Y%m%d"),
            "generated-by-metaflow": True,
            **given,
        }
        state = State.open()
        try:
            done = publish_event(state, self._name, payload, now=now, event_id=identity)
        finally:
            state.close()
        for line in done.warnings:
            print(line, file=sys.stderr)
        print(f"Event ({self._name}) published.", file=sys.stderr)
        return str(payload["id"])
