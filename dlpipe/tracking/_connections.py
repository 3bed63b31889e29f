"""Whether a database server takes a connection; known within seconds."""

from __future__ import annotations

from urllib.parse import urlsplit

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import HIDDEN, redact, show_address
from dlpipe.tracking._questions import ANSWER_SECONDS, START, TRACKING, ask_within, name_variable


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
    if problem := ask_within(_find_connection_problem, uri, seconds):
        raise TrackingUnavailable(
            f"The database at {show_address(uri)} takes no connection {name_variable(problem, variable)}"
        )


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
