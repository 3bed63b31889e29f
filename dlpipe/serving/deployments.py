"""MLflow's deployments at a server of dlpipe: the entry point ``mlflow.deployments``.

A deployment is an alias of a registered model: ``reviews`` is its champion, ``reviews@staging`` another alias. A
server follows aliases by itself, so that making a deployment is pointing an alias, and the rest is asking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from mlflow.deployments import BaseDeploymentClient, PredictionsResponse
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST

from dlpipe.errors import DlpipeError, ModelNotFound, SettingError
from dlpipe.registry import CHAMPION, ModelVersion, parse_uri, point_alias, promote, resolve
from dlpipe.serving.client import Client

ADDRESS = "http://127.0.0.1:8720"
FLAVOR = "python_function"
FOLLOWED_SECONDS = 90.0
"""How long a server has to follow an alias and to load what is new."""

Method = TypeVar("Method", bound=Callable[..., Any])


def target_help() -> str:
    """Return what `mlflow deployments help -t dlpipe` prints."""
    return f"""A deployment is an alias of a registered model at a running server (dlpipe serve).

Targets: dlpipe is {ADDRESS}; dlpipe://HOST:PORT is http://HOST:PORT; dlpipe:https://HOST is that address.
Names: NAME is the champion of the model NAME, NAME@ALIAS another alias. Where the server asks for a key, it is in
the variable DLPIPE_KEY.

create   points an alias that does not exist yet at a version of the same model (-m models:/NAME/3), and waits
         until the server answers with it
update   points it at another version; of a champion, that is `dlpipe models promote --force`: its pipeline and its
         explainer move with it, and the gate is not asked
delete   takes an alias away; that of a champion stays, since it is where people ask
list     every alias of every model of the server
get      what answers: version, digest, engine, inputs, outputs
predict  predicts; explain explains (20 rows at most)
run-local  serves the version in this process, on -C port=8720, until Ctrl-C

Flavors, endpoints and further -C options are refused: a server takes models as they are registered."""


def run_local(
    name: str, model_uri: str, flavor: str | None = None, config: Mapping[str, Any] | None = None
) -> None:
    """Serve a registered version in this process until Ctrl-C.

    Parameters
    ----------
    name : str
        Not used: the address is that of the registered model.
    model_uri : str
        Such as ``models:/reviews/3``.
    flavor : str, optional
        ``python_function``.
    config : mapping, optional
        ``port``, 8720 by default.
    """
    from dlpipe.serving.server import ServeSettings, serve

    given = dict(config or {})
    port = str(given.pop("port", 8720))
    with told_as_mlflow_does():
        check_options(flavor, given, None)
        if not port.isdecimal():
            raise SettingError(f"-C port={port} is no port.")
        serve(ServeSettings(port=int(port), models=[model_uri]), say=print)


class told_as_mlflow_does:
    """Turns errors of dlpipe into those that MLflow's commands print in a line."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DlpipeError):
            code = RESOURCE_DOES_NOT_EXIST if isinstance(error, ModelNotFound) else BAD_REQUEST
            raise MlflowException(str(error), code) from None


def as_mlflow_does(method: Method) -> Method:
    """Return ``method`` with errors as MLflow's clients expect them."""

    @wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        with told_as_mlflow_does():
            return method(*args, **options)

    return call  # type: ignore[return-value]


def check_options(flavor: str | None, config: Mapping[str, Any] | None, endpoint: str | None) -> None:
    """Raise ``SettingError`` for what a server does not take."""
    if flavor not in (None, FLAVOR):
        raise SettingError(f"Models of the flavor {flavor!r} are not served; leave --flavor out.")
    if config:
        raise SettingError(f"There is no option {', '.join(map(repr, config))} of a deployment.")
    if endpoint is not None:
        raise SettingError("A server of dlpipe has no endpoints beside its models; pass --name.")


def split_name(name: str | None) -> tuple[str, str]:
    """Return the model and the alias that a deployment's name means.

    Examples
    --------
    >>> split_name("reviews"), split_name("reviews@staging")
    (('reviews', 'champion'), ('reviews', 'staging'))
    """
    model, version, alias = parse_uri(name or "")
    if version is not None:
        raise SettingError(f"{name!r} is a version; a deployment is an alias, such as {model} or {model}@staging.")
    return model, alias or CHAMPION


class DeploymentClient(BaseDeploymentClient):
    """What `mlflow.deployments.get_deploy_client("dlpipe")` returns; ``target_help`` says what each call does."""

    def __init__(self, target_uri: str = "dlpipe") -> None:
        super().__init__(target_uri)
        rest = target_uri.removeprefix("dlpipe").removeprefix(":")
        address = (f"http:{rest}" if rest.startswith("//") else rest) or ADDRESS
        with told_as_mlflow_does():
            self.server = Client(address)

    @as_mlflow_does
    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Point an alias that does not exist yet at a version, and return what answers then."""
        check_options(flavor, config, endpoint)
        version, alias = self._find(name, model_uri)
        if alias in self._list_aliases(version.name):
            raise MlflowException(f"{name!r} exists. Update it instead.", RESOURCE_ALREADY_EXISTS)
        return self._point(name, alias, version)

    @as_mlflow_does
    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Point an alias at another version, and return what answers then."""
        check_options(flavor, config, endpoint)
        if model_uri is None:
            raise SettingError("Nothing to update: pass --model-uri models:/NAME/3.")
        version, alias = self._find(name, model_uri)
        if alias not in self._list_aliases(version.name):
            raise ModelNotFound(f"There is no deployment {name!r}. Create it first.")
        return self._point(name, alias, version)

    @as_mlflow_does
    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Take an alias away, if there is one."""
        check_options(None, config, endpoint)
        model, alias = split_name(name)
        if alias == CHAMPION:
            raise SettingError(
                f"{name!r} is the champion of a model, which is where people ask: it is moved, and not taken away."
            )
        point_alias(model, alias, None)

    @as_mlflow_does
    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """Return every alias of every model of the server."""
        check_options(None, None, endpoint)
        return [
            {
                "name": model["name"] if alias == CHAMPION else f"{model['name']}@{alias}",
                "model_uri": f"models:/{model['name']}/{version}",
                "flavor": FLAVOR,
            }
            for model in self.server.list_models()
            for alias, version in model["aliases"].items()
        ]

    @as_mlflow_does
    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Return what answers for an alias."""
        check_options(None, None, endpoint)
        return {"name": name, "flavor": FLAVOR, **self.server.describe(*split_name(name))}

    @as_mlflow_does
    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Return the predictions for a frame, a list of texts or of rows, or a mapping of columns."""
        check_options(None, None, endpoint)
        answer = self.server.predict(*split_name(deployment_name), rows=to_rows(inputs))
        return PredictionsResponse(predictions=answer["predictions"])

    @as_mlflow_does
    def explain(
        self, deployment_name: str | None = None, df: Any = None, endpoint: str | None = None
    ) -> list[dict[str, Any]]:
        """Return for each row what its parts add to the prediction."""
        check_options(None, None, endpoint)
        explained = self.server.explain(*split_name(deployment_name), rows=to_rows(df))["explanations"]
        return list(explained)

    def _find(self, name: str, model_uri: str) -> tuple[ModelVersion, str]:
        model, alias = split_name(name)
        version = resolve(model_uri)
        if version.name != model:
            raise SettingError(f"{name!r} is an alias of the model {model!r}, and {version.uri} is another model.")
        return version, alias

    def _list_aliases(self, model: str) -> Mapping[str, int]:
        return next((one["aliases"] for one in self.server.list_models() if one["name"] == model), {})

    def _point(self, name: str, alias: str, version: ModelVersion) -> dict[str, Any]:
        """Point an alias at a version, and wait until the server answers with it."""
        if alias == CHAMPION:
            promote(version, why="mlflow deployments")
        else:
            point_alias(version.name, alias, version.version)
        until = time.monotonic() + FOLLOWED_SECONDS
        while True:
            late = time.monotonic() > until
            try:
                about = self.server.describe(version.name, alias)
            except ModelNotFound:  # who asked before it was there is told so for a second
                if late:
                    raise
            else:
                if about["version"] == version.version:
                    return {"name": name, "flavor": FLAVOR, **about}
                if late:
                    raise SettingError(
                        f"{name!r} points at {version.uri}, and the server still answers with "
                        f"v{about['version']}: GET {self.server.url}/models says why."
                    )
            time.sleep(0.2)


def to_rows(given: Any) -> list[Any]:
    """Return what a caller of MLflow passes as rows that can be sent.

    Examples
    --------
    >>> to_rows({"text": ["good", "bad"]})
    [{'text': 'good'}, {'text': 'bad'}]
    """
    import pandas as pd

    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        given = pd.DataFrame(given)
    if isinstance(given, pd.DataFrame):
        objects = given.astype(object)
        records = objects.where(objects.notna(), None).to_dict("records")
        return [{str(name): to_plain(value) for name, value in row.items()} for row in records]
    return [to_plain(value) for value in list(given)]


def to_plain(value: Any) -> Any:
    """Return a value of Python."""
    return value.item() if hasattr(value, "item") else value
