"""Questions to a server, with an answer within seconds, and the words about it that name the right variable."""

from __future__ import annotations

import threading
from collections.abc import Callable

TRACKING = "MLFLOW_TRACKING_URI"
REGISTRY = "MLFLOW_REGISTRY_URI"
START = f"Start it, correct {TRACKING}, or unset it to use sqlite:///mlflow.db."
CORRECT = f"Correct {TRACKING}, or unset it to use sqlite:///mlflow.db."
ANSWER_SECONDS = 8.0


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


def ask_within(question: Callable[[str], str], uri: str, seconds: float) -> str:
    """Return the answer to a question about ``uri``, or that there was none.

    Parameters
    ----------
    question : callable
        Takes the address and returns what is wrong with it; empty for nothing.
    uri : str
        The address.
    seconds : float
        What the answer may take.
    """
    heard: list[str] = []
    # in a thread that can be left behind: looking up a host has no limit, and neither has a server that drips
    asking = threading.Thread(target=lambda: heard.append(question(uri)), daemon=True)
    asking.start()
    asking.join(seconds)
    return heard[0] if heard else describe_silence(f"no answer in {seconds:.0f} seconds")


def describe_silence(why: str) -> str:
    """Return that a server does not answer, why, and what to do."""
    return f"does not answer ({why}). {START}"
