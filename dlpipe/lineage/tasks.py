"""Tasks and runs as nodes."""

from __future__ import annotations

from dlpipe.lineage.nodes import Node


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
