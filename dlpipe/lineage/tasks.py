"""Tasks and runs as nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dlpipe.lineage.indexed_models import REGISTERED_BY, TRAINED_BY
from dlpipe.lineage.nodes import Node

ATTEMPT = re.compile(r"[A-Za-z_]\w*/\w[\w.-]*/\w+/\w[\w.-]*/\d+")


def read_attempt(key: object) -> str:
    """Return the key of an attempt that a tag or a commit names; empty for what another program wrote there.

    Examples
    --------
    >>> read_attempt("TrainFlow/17/train/4/0"), read_attempt("TrainFlow/17"), read_attempt(None)
    ('TrainFlow/17/train/4/0', '', '')
    """
    return key if isinstance(key, str) and ATTEMPT.fullmatch(key) else ""


def find_training(tags: Mapping[str, str]) -> str:
    """Return the key of the attempt that trained a version; empty where its tags name none.

    Examples
    --------
    >>> find_training({"metaflow.pathspec": "TrainFlow/7/train/3", "metaflow.attempt": "1"})
    'TrainFlow/7/train/3/1'
    >>> find_training({"metaflow.pathspec": "TrainFlow/7"})
    ''
    """
    return read_attempt(f"{tags.get(TRAINED_BY)}/{tags.get('metaflow.attempt', '0')}")


def find_registration(tags: Mapping[str, str]) -> str:
    """Return the key of the attempt that registered a version; empty where its tags name none."""
    return read_attempt(tags.get(REGISTERED_BY))


def make_task_node(key: str) -> tuple[Node, str]:
    """Return the node of a task, and which attempt it was, from the key of an attempt or the pathspec of a task.

    Examples
    --------
    >>> node, attempt = make_task_node("TrainFlow/17/train/4/1")
    >>> print(node, attempt)
    TrainFlow/17/train/4 attempt 1
    >>> make_task_node("TrainFlow/17/train/4/0")[1]
    ''
    """
    flow, run, step, task, *attempt = key.split("/")
    # the first attempt is what one expects
    return Node("task", flow, key=f"{run}/{step}/{task}"), "".join(f"attempt {n}" for n in attempt if n != "0")


def make_run_node(pathspec: str) -> Node:
    """Return the node of the run that a pathspec of it, or of a task of it, names.

    Examples
    --------
    >>> print(make_run_node("TrainFlow/17/train/4"))
    TrainFlow/17
    """
    flow, run = pathspec.split("/")[:2]
    return Node("run", flow, key=run)
