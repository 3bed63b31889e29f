"""New projects: made from a template and what a file shows, and brought up to a newer template later."""

from dlpipe.templates.merging import Merge
from dlpipe.templates.projects import Project, make_project
from dlpipe.templates.updating import Update, update_project

__all__ = ["Merge", "Project", "Update", "make_project", "update_project"]
