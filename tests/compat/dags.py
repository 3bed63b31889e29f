"""What Airflow makes of a folder of DAG files, as JSON; run by the Python of ``.venv-compat``."""

from __future__ import annotations

import contextlib
import json
import sys

from airflow.models.dagbag import DagBag


def look(folder: str) -> dict[str, object]:
    with contextlib.redirect_stdout(sys.stderr):
        bag = DagBag(folder, include_examples=False, safe_mode=False)
    return {
        "errors": dict(bag.import_errors),
        "dags": {
            name: {
                "schedule": dag.timetable.summary,
                "tasks": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
                "operators": sorted({type(task).__mro__[1].__name__ for task in dag.tasks}),
                "images": sorted({task.image for task in dag.tasks}),
                "parameters": {key: dag.params[key] for key in dag.params},
            }
            for name, dag in bag.dags.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1])))
