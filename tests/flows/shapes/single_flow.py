"""A flow of one step, which makes a mess of its process: folder, environment, standard streams, a child."""

import logging
import os
import sys
import tempfile

from metaflow import FlowSpec, step

HEAVY = ("mlflow", "dlpipe", "pandas", "sqlalchemy")


class SingleFlow(FlowSpec):
    """Behave badly, and end well."""

    @step
    def only(self):
        os.chdir(tempfile.gettempdir())
        os.environ.clear()
        sys.stdout.write("no newline at the end, \x1b[31mcolours\x1b[0m and a \x00 byte")
        logging.getLogger().setLevel(logging.CRITICAL)
        if os.fork() == 0:
            os._exit(5)
        self.child = os.waitstatus_to_exitcode(os.wait()[1])
        self.ünïcode = "name"
        self.modules = sorted(name for name in sys.modules if name.partition(".")[0] in HEAVY)


if __name__ == "__main__":
    SingleFlow()
