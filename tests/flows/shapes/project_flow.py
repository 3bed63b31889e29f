"""A flow of a project, with a base class, steps of other names for start and end, and a card."""

from metaflow import FlowSpec, card, current, project, schedule, step


class Base(FlowSpec):
    """What flows of the project share."""

    @step(start=True)
    def begin(self):
        self.names = current.project_name, current.branch_name, current.project_flow_name
        self.next(self.finish)


@schedule(daily=True)
@project(name="shapes")
class ProjectFlow(Base):
    """Say the names of the project."""

    @card(type="blank")
    @step(end=True)
    def finish(self):
        self.production = current.is_production
        print(*self.names)


if __name__ == "__main__":
    ProjectFlow()
