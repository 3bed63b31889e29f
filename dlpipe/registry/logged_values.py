"""What a version was logged with: its parameters and its scores."""

from __future__ import annotations

from dlpipe.registry.registration import name_origin
from dlpipe.registry.versions import ModelVersion, read_metrics
from dlpipe.tracking import open_store, tracking_errors


def read_logged_values(version: ModelVersion) -> tuple[dict[str, str], dict[str, float]]:
    """Return the parameters and the metrics of a version; both empty where its logged model was deleted."""
    from mlflow.exceptions import MlflowException

    store = open_store()
    with tracking_errors(store):
        client = store.client()
        if not version.model_id:
            return {}, {}
        try:
            kept = client.get_logged_model(version.model_id).params or {}
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return {}, {}
        origin = name_origin(version.tags)  # says where it comes from, and is no setting
        params = {name: value for name, value in kept.items() if name not in origin}
        return params, read_metrics(client, version)
