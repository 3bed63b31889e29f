"""Model versions in the MLflow registry: log and register, look up, promote."""

from dlpipe.registry.promotion import Promotion, promote
from dlpipe.registry.registration import (
    LOADER,
    Loggable,
    Packaging,
    log_and_register,
    registration_key,
    requirements,
)
from dlpipe.registry.versions import (
    CHALLENGER,
    CHAMPION,
    KEY,
    ModelVersion,
    champion,
    list_models,
    model_names,
    parse_uri,
    resolve,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "KEY",
    "LOADER",
    "Loggable",
    "ModelVersion",
    "Packaging",
    "Promotion",
    "champion",
    "list_models",
    "log_and_register",
    "model_names",
    "parse_uri",
    "promote",
    "registration_key",
    "requirements",
    "resolve",
]
