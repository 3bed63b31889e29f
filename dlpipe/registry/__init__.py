"""Model versions in the MLflow registry: log and register, look up, promote.

names         names of models, aliases, tags
versions      what a version is, and finding it
families      a classifier and what is made from it
packaging     files in the form that MLflow opens
registration  a version made once, however often it is asked for: by way of
runs          the run that it logs into
logged_models its files in MLflow
creation      the version itself, with its alias and links
companions    pipelines and explainers, and a whole family registered
moving        an alias of several models moved as one
promotion     champions, and going back
history       who was champion when, and why
deletion      versions taken out
"""

from dlpipe.registry.companions import register_companion, register_family
from dlpipe.registry.deletion import delete_version
from dlpipe.registry.families import check_name_free
from dlpipe.registry.names import CHALLENGER, CHAMPION, KEY, KIND, MADE_FROM, TASK, check_model_name
from dlpipe.registry.packaging import LOADER, Loggable, Packaging, requirements
from dlpipe.registry.promotion import Promotion, champion_before, promote, promote_judged
from dlpipe.registry.registration import log_and_register, registration_key
from dlpipe.registry.versions import ModelVersion, champion, list_models, model_names, parse_uri, resolve

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "KEY",
    "KIND",
    "LOADER",
    "MADE_FROM",
    "TASK",
    "Loggable",
    "ModelVersion",
    "Packaging",
    "Promotion",
    "champion",
    "champion_before",
    "check_model_name",
    "check_name_free",
    "delete_version",
    "list_models",
    "log_and_register",
    "model_names",
    "parse_uri",
    "promote",
    "promote_judged",
    "register_companion",
    "register_family",
    "registration_key",
    "requirements",
    "resolve",
]
