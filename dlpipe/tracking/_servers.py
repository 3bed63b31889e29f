"""Whether a server, of MLflow or of its database, answers as the one that is meant; known within seconds."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import HIDDEN, redact, show_address

if TYPE_CHECKING:
    from requests import Response

ANSWER_SECONDS = 8.0
LOOK = "/api/2.0/mlflow/experiments/search"
"""A question that only MLflow answers, and only to those who may read."""
CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
NONE = "no connection"
TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
START = f"Start it, correct {TRACKING}, or unset it to use sqlite:///mlflow.db."
CORRECT = f"Correct {TRACKING}, or unset it to use sqlite:///mlflow.db."


def check_answers(uri: str, seconds: float = ANSWER_SECONDS, *, variable: str = TRACKING) -> None:
    """Raise ``TrackingUnavailable`` within 10 seconds unless an MLflow server at ``uri`` lets us read.

    Parameters
    ----------
    uri : str
        Its address.
    seconds : float, optional
        What its answer may take; looking up its host counts.
    variable : str, optional
        The environment variable that names it, for the error.
    """
    problem = _ask_within(_find_silence, uri, seconds)
    if not problem:
        import mlflow.utils.rest_utils  # noqa: F401  # takes seconds, which are none of the server's

        problem = _ask_within(_find_server_problem, uri, seconds)
    if problem:
        raise TrackingUnavailable(f"The MLflow server at {show_address(uri)} {name_variable(problem, variable)}")


def check_connects(uri: str, seconds: float = ANSWER_SECONDS, *, variable: str = TRACKING) -> None:
    """Raise ``TrackingUnavailable`` within 10 seconds unless the database server at ``uri`` takes a connection.

    MLflow itself would try for 100 seconds.

    Parameters
    ----------
    uri : str
        Its address in SQLAlchemy's form.
    seconds : float, optional
        What connecting may take; looking up its host counts.
    variable : str, optional
        The environment variable that names it, for the error.
    """
    if problem := _ask_within(_find_connection_problem, uri, seconds):
        raise TrackingUnavailable(
            f"The database at {show_address(uri)} takes no connection {name_variable(problem, variable)}"
        )


def name_variable(problem: str, variable: str) -> str:
    """Return what is wrong with an address, in words about the variable that names it.

    Examples
    --------
    >>> name_variable(f"is none of MLflow's. {CORRECT}", REGISTRY)
    "is none of MLflow's. Correct MLFLOW_REGISTRY_URI, or unset it to use that of MLFLOW_TRACKING_URI."
    """
    if variable == TRACKING:
        return problem
    return problem.replace(TRACKING, variable).replace("sqlite:///mlflow.db", f"that of {TRACKING}")


def suggest_credentials() -> str:
    """Return what to do about credentials that a server does not take."""
    there = [name for name in CREDENTIALS if os.environ.get(name)]
    if there:
        return f"Correct the credentials in {' and '.join(there)}, or have their rights changed."
    return f"Set {CREDENTIALS[0]} and {CREDENTIALS[1]}, or {CREDENTIALS[2]}."


def _ask_within(question: Callable[[str], str], uri: str, seconds: float) -> str:
    """Return the answer to a question about ``uri``; looking up a host, or a server that drips, knows no limit."""
    heard: list[str] = []
    asking = threading.Thread(target=lambda: heard.append(question(uri)), daemon=True)  # it can be left behind
    asking.start()
    asking.join(seconds)
    return heard[0] if heard else _describe_silence(f"no answer in {seconds:.0f} seconds")


def _describe_silence(why: str) -> str:
    return f"does not answer ({why}). {START}"


def _find_connection_problem(uri: str) -> str:
    """Return what is wrong with the database server at ``uri`` in a line, or an empty string."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except ImportError as error:
        return f"({error}; install the driver). {START}"
    except Exception as error:  # a driver's own classes
        text = redact(str(getattr(error, "orig", None) or error))
        password = urlsplit(uri).password
        text = text.replace(password, HIDDEN) if password else text
        line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
        return f"({line}). {START}"
    return ""


def _find_silence(uri: str) -> str:
    """Return what is wrong where no server answers at all at ``uri``, or an empty string; imports no MLflow."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=(3, 5), stream=True, allow_redirects=False).close()
    except requests.exceptions.SSLError:  # MLflow may be told to trust it all the same
        return ""
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        return _describe_silence(_explain_silence(str(error)))
    except (requests.exceptions.RequestException, ValueError) as error:
        return f"cannot be asked ({_take_first_line(error)}). {CORRECT}"
    return ""


def _find_server_problem(uri: str) -> str:
    """Return what is wrong with the MLflow server at ``uri`` and what to do, or an empty string."""
    import requests

    try:
        answer = _look(uri)
    except requests.exceptions.SSLError as error:
        return f"has no certificate that is trusted here ({_take_first_line(error)}). Set REQUESTS_CA_BUNDLE."
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        return _describe_silence(_explain_silence(str(error)))
    except Exception as error:  # a credentials file that cannot be read, an address that is none, a plug-in's own
        return f"cannot be asked ({_take_first_line(error)}). {CORRECT}"
    return _find_answer_problem(answer)


def _explain_silence(text: str) -> str:
    """What an error of the connection means; MLflow's session tells a slow answer as a failed connection."""
    signs = {"Read timed out": "connected, but no answer in 5 seconds", "timed out": "no connection in 3 seconds"}
    return next(
        (words for sign, words in {**signs, "refused": "connection refused"}.items() if sign in text), NONE
    )


def _look(uri: str) -> Response:
    """Return the answer to one look, with MLflow's own credentials, headers and certificates."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with _raise_own_errors():
        answer: Any = http_request(
            get_default_host_creds(uri),
            LOOK,
            "GET",
            params={"max_results": 1},
            max_retries=0,
            timeout=(3, 5),
            allow_redirects=False,
            raise_on_status=False,
        )
    return answer  # type: ignore[no-any-return]


@contextlib.contextmanager
def _raise_own_errors() -> Iterator[None]:
    """Raise what ``requests`` raised instead of MLflow's error around it."""
    import requests

    try:
        yield
    except Exception as error:
        inner = error.__cause__ or error.__context__
        raise (inner if isinstance(inner, requests.exceptions.RequestException) else error) from None


def _find_answer_problem(answer: Response) -> str:
    status, reason = answer.status_code, f"{answer.status_code} {answer.reason}".strip()
    if status == 401:
        return f"wants other credentials than it was given (it says {reason}). {suggest_credentials()}"
    if status == 403:
        return f"refuses to be read (it says {reason}{_quote_refusal(answer)}). {suggest_credentials()}"
    if 300 <= status < 400:
        there = show_address(answer.headers.get("Location", "")).partition(LOOK)[0]
        return f"sends us elsewhere ({reason}: {there or 'it does not say where'}). {CORRECT}"
    if status >= 500:
        return _describe_silence(f"it says {reason}")
    if status != 200 or not _is_of_mlflow(answer):
        return f"is none of MLflow's: {reason} for {LOOK}, and not as MLflow answers. {CORRECT}"
    return ""


def _quote_refusal(answer: Response) -> str:
    """What a server says of its refusal, such as that it does not know itself by this host's name."""
    line = _take_first_line(answer.text)
    return f": {line}" if line and not line.startswith("<") else ""


def _is_of_mlflow(answer: Response) -> bool:
    try:
        found = answer.json()
    except ValueError:
        return False
    if not isinstance(found, dict) or not found.keys() <= {"experiments", "next_page_token"}:
        return False
    experiments = found.get("experiments", [])
    return isinstance(experiments, list) and all(isinstance(experiment, dict) for experiment in experiments)


def _take_first_line(text: object) -> str:
    lines = redact(str(text)).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else ""
