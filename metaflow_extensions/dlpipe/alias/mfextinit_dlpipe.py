"""What dlpipe puts in place of names of ``metaflow.integrations``."""

ALIASES_DESC = [("ArgoEvent", "..plugins.local_scheduler.argo_event.LocalArgoEvent")]
