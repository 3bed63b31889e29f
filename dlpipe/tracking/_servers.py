"""Whether an MLflow server answers, as MLflow, to those who may read; known within seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import redact, show_address
from dlpipe.tracking._credentials import suggest_credentials
from dlpipe.tracking._questions import (
    ANSWER_SECONDS,
    CORRECT,
    TRACKING,
    ask_within,
    describe_silence,
    name_variable,
)

if TYPE_CHECKING:
    from requests import Response

LOOK = "/api/2.0/mlflow/experiments/search"
"""A question that only MLflow answers, and only to those who may read."""
NONE = "no connection"


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
    problem = ask_within(_find_silence, uri, seconds)
    if not problem:
        import mlflow.utils.rest_utils  # noqa: F401  # takes seconds, which are none of the server's

        problem = ask_within(_find_server_problem, uri, seconds)
    if problem:
        raise TrackingUnavailable(f"The MLflow server at {show_address(uri)} {name_variable(problem, variable)}")


def _find_silence(uri: str) -> str:
    """Return what is wrong where no server answers at all at ``uri``, or an empty string; imports no MLflow."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=(3, 5), stream=True, allow_redirects=False).close()
    except requests.exceptions.SSLError:  # MLflow may be told to trust it all the same
        return ""
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        return describe_silence(_explain_silence(str(error)))
    except (requests.exceptions.RequestException, ValueError) as error:
        return f"cannot be asked ({take_first_line(error)}). {CORRECT}"
    return ""


def _find_server_problem(uri: str) -> str:
    """Return what is wrong with the MLflow server at ``uri`` and what to do, or an empty string."""
    import requests

    try:
        answer = _look(uri)
    except requests.exceptions.SSLError as error:
        return f"has no certificate that is trusted here ({take_first_line(error)}). Set REQUESTS_CA_BUNDLE."
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        return describe_silence(_explain_silence(str(error)))
    except Exception as error:  # a credentials file that cannot be read, an address that is none, a plug-in's own
        return f"cannot be asked ({take_first_line(error)}). {CORRECT}"
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
        return describe_silence(f"it says {reason}")
    if status != 200 or not _is_of_mlflow(answer):
        return f"is none of MLflow's: {reason} for {LOOK}, and not as MLflow answers. {CORRECT}"
    return ""


def _quote_refusal(answer: Response) -> str:
    """What a server says of its refusal, such as that it does not know itself by this host's name."""
    line = take_first_line(answer.text)
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


def take_first_line(text: object) -> str:
    lines = redact(str(text)).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else ""
