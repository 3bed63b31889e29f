"""Whether a server, of MLflow or of its database, answers, said within seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from urllib.parse import urlsplit

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import HIDDEN, redact, show_address

ANSWER_SECONDS = 8.0


def check_answers(uri: str, seconds: float = ANSWER_SECONDS) -> None:
    """Raise ``TrackingUnavailable`` within 10 seconds unless the MLflow server at ``uri`` says it is well."""
    if problem := _asked(_health, uri, seconds):
        raise TrackingUnavailable(
            f"The MLflow server at {show_address(uri)} does not answer ({problem}). "
            "Start it, correct MLFLOW_TRACKING_URI, or unset it to use sqlite:///mlflow.db."
        )


def check_connects(uri: str, seconds: float = ANSWER_SECONDS) -> None:
    """Raise ``TrackingUnavailable`` within 10 seconds unless the database server at ``uri`` takes a connection.

    MLflow itself would try for 100 seconds.
    """
    if problem := _asked(_connection, uri, seconds):
        raise TrackingUnavailable(
            f"The database at {show_address(uri)} takes no connection ({problem}). "
            "Start it, correct MLFLOW_TRACKING_URI, or unset it to use sqlite:///mlflow.db."
        )


def _asked(question: Callable[[str], str], uri: str, seconds: float) -> str:
    """Return the answer to a question about ``uri``; looking up a host, or a server that drips, knows no limit."""
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(question(uri)), daemon=True)  # it can be left behind
    asking.start()
    asking.join(seconds)
    return said[0] if said else f"no answer in {seconds:.0f} seconds"


def _connection(uri: str) -> str:
    """Return what is wrong with the database server at ``uri`` in a line, or an empty string."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except ImportError as error:
        return f"{error}; install the driver"
    except Exception as error:  # a driver's own classes
        said = redact(str(getattr(error, "orig", None) or error))
        password = urlsplit(uri).password
        said = said.replace(password, HIDDEN) if password else said
        return next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    return ""


def _health(uri: str) -> str:
    """Return what is wrong with the server at ``uri`` in a few words, or an empty string."""
    import requests

    address = f"{uri.rstrip('/')}/health"
    try:
        with requests.get(address, timeout=(3, 5), stream=True, allow_redirects=False) as answer:
            return f"it says {answer.status_code} {answer.reason}" if answer.status_code >= 500 else ""
    except requests.exceptions.ConnectTimeout:
        return "no connection in 3 seconds"
    except requests.exceptions.Timeout:
        return "connected, but no answer in 5 seconds"
    except requests.exceptions.ConnectionError as error:
        return "connection refused" if "refused" in str(error) else "no connection"
    except (requests.exceptions.RequestException, ValueError) as error:
        return redact(str(error)).splitlines()[0]
