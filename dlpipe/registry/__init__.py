"""Model versions in the MLflow registry: log and register, look up, promote."""

from dlpipe.registry.companions import KIND, MADE_FROM, register_companion
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
    "KIND",
    "LOADER",
    "MADE_FROM",
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
    "register_companion",
    "registration_key",
    "requirements",
    "resolve",
]
