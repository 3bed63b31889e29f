"""Model versions in the MLflow registry: log and register, look up, promote.

names         names of models, aliases and tags
versions      what a version is; finding versions by URI, alias or key
families      a classifier and its companions: the pipeline and the explainer made from it
packaging     a model's files in the form that MLflow opens
wheel         dlpipe as a wheel among those files
registration  registering a version once, however often it is asked for; its steps are in
runs          the MLflow run that a registration logs into
logged_models MLflow's logged model, with the files
logged_values parameters and scores that a version was logged with
scores        what MLflow and a version's tags keep of evaluations
verdicts      what a version's tag keeps of the gate
uses          the files that taught a version, and what it was used for
descriptions  the description of a version
pages         descriptions brought up to date with uses
creation      the model version, its alias and its links
companions    registering companions, and a whole family
moving        moving an alias of several models as one
promotion     moving the champion, and finding the one before
watching      where aliases point, asked again and again
history       who was champion when, and why
details       all that is known of one version
records       every model with its versions, moves and deletions
deletion      deleting versions
forgotten     versions that were trained on rows which were forgotten since

MLflow is imported by the functions that call it: it takes 1.4 to 2.3 s, and many need ``ModelVersion`` alone.
"""

from dlpipe.registry.companions import register_companion, register_family
from dlpipe.registry.deletion import delete_version, list_deleted
from dlpipe.registry.descriptions import list_compared
from dlpipe.registry.details import VersionDetails, read_details
from dlpipe.registry.families import check_name_free
from dlpipe.registry.forgotten import describe_forgotten, mark_forgotten, read_forgotten_rows
from dlpipe.registry.history import ChampionMove
from dlpipe.registry.logged_values import read_logged_values
from dlpipe.registry.names import (
    CHALLENGER,
    CHAMPION,
    KEY,
    KIND,
    MADE_FROM,
    TASK,
    check_model_name,
    classifier_name,
    companion_name,
)
from dlpipe.registry.packaging import LOADER, Loggable, Packaging, list_requirements
from dlpipe.registry.pages import record_uses
from dlpipe.registry.promotion import Promotion, find_earlier_champion, judge_and_promote, promote
from dlpipe.registry.records import (
    ModelLookup,
    ModelRecord,
    RegisteredModel,
    RegisteredVersion,
    list_model_records,
)
from dlpipe.registry.registration import log_and_register
from dlpipe.registry.scores import format_source, read_scores
from dlpipe.registry.uses import Use, VersionUses, read_uses
from dlpipe.registry.verdicts import read_verdict
from dlpipe.registry.versions import (
    ModelVersion,
    find_champion,
    list_aliases,
    list_versions,
    parse_uri,
    point_alias,
    resolve,
)
from dlpipe.registry.watching import AliasWatcher

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "KEY",
    "KIND",
    "LOADER",
    "MADE_FROM",
    "TASK",
    "AliasWatcher",
    "ChampionMove",
    "Loggable",
    "ModelLookup",
    "ModelRecord",
    "ModelVersion",
    "Packaging",
    "Promotion",
    "RegisteredModel",
    "RegisteredVersion",
    "Use",
    "VersionDetails",
    "VersionUses",
    "check_model_name",
    "check_name_free",
    "classifier_name",
    "companion_name",
    "delete_version",
    "describe_forgotten",
    "find_champion",
    "find_earlier_champion",
    "format_source",
    "judge_and_promote",
    "list_aliases",
    "list_compared",
    "list_deleted",
    "list_model_records",
    "list_requirements",
    "list_versions",
    "log_and_register",
    "mark_forgotten",
    "parse_uri",
    "point_alias",
    "promote",
    "read_details",
    "read_forgotten_rows",
    "read_logged_values",
    "read_scores",
    "read_uses",
    "read_verdict",
    "record_uses",
    "register_companion",
    "register_family",
    "resolve",
]
