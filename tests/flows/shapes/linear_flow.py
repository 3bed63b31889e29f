"""A flow in one line that is given all that a flow can be given: file, JSON, configuration, numbers, text."""

from metaflow import Config, FlowSpec, IncludeFile, JSONType, Parameter, config_expr, environment, resources, step


class LinearFlow(FlowSpec):
    """Look at what was given."""

    settings = Config(
        "settings", default_value={"training": {"epochs": 3, "rate": 0.1}, "mark": "from the config"}
    )
    source = IncludeFile("source", default=__file__, help="A text file; by default this one.")
    weights = Parameter("weights", type=JSONType, default='{"good": 1.5, "bad": [1, 2, null]}')
    epochs = Parameter("epochs", type=int, default=config_expr("settings.training.epochs"))
    share = Parameter("share", type=float, default=0.25)
    shout = Parameter("shout", type=bool, default=True)
    title = Parameter("title", default="grüße, 世界 🌍")

    @step
    def start(self):
        self.lines = len(self.source.splitlines())
        self.good = self.weights["good"]
        self.rate = self.settings.training.rate
        self.next(self.middle)

    @resources(cpu=1, memory=512)
    @environment(vars={"MARK": config_expr("settings.mark")})
    @step
    def middle(self):
        import os

        self.mark = os.environ["MARK"]
        print(self.title, self.mark)
        self.next(self.end)

    @step
    def end(self):
        self.total = self.epochs * self.good if self.shout else self.share


if __name__ == "__main__":
    LinearFlow()
