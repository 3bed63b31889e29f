"""What dlpipe adds to the names that ``from metaflow import ...`` knows."""

toplevel = "flow_decorators"
