"""A registered model and a table in; a table of predictions out."""

from clear_errors import clear_errors
from metaflow import FlowSpec, Parameter, mlflow_bridge, step


@mlflow_bridge
@clear_errors
class PredictFlow(FlowSpec):
    """Score a version of a table with a registered model or pipeline.

    1. start   pin the version of the model and the version of the table
    2. score   append the predictions to a table in one commit; nothing is added if that was done before
    3. end     print where they are
    """

    model = Parameter("model", type=str, default="reviews", help="Such as models:/reviews@champion.")
    table = Parameter("table", type=str, default="reviews", help="Name or path of the Delta table.")
    table_version = Parameter("table-version", type=int, default=None, help="By default the latest.")
    split = Parameter("split", type=str, default=None, help="train, valid or test; by default all rows.")
    target = Parameter("target", type=str, default=None, help="Table of the predictions.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to score on (not pipelines).")

    @step
    def start(self):
        """Find the model and the table, and pin both."""
        from pinning import pinned

        from dlpipe.cluster import find

        find(self.ray_address)
        self.scored_by, self.scored_rows = pinned(self.model, self.table, self.table_version)
        print(f"{self.scored_rows}, {self.scored_rows.rows:,} rows, with {self.scored_by.uri}")
        self.next(self.score)

    @step
    def score(self):
        """Score the rows; one commit holds all of them."""
        from pinning import table_named

        from dlpipe.cluster import join
        from dlpipe.inference import is_pipeline, load_pipeline, load_predictor, score, score_with_pipeline

        pinned = {"model": self.scored_by, "split": self.split}
        if is_pipeline(self.scored_by):
            target = table_named(self.target, self.scored_rows, "answers")
            pipeline = load_pipeline(self.scored_by.uri)
            self.predictions = score_with_pipeline(pipeline, self.scored_rows, target=target, **pinned)
        else:
            target = table_named(self.target, self.scored_rows, "predictions")
            predictor = load_predictor(self.scored_by.uri)
            with join(self.ray_address) as cluster:
                self.predictions = score(predictor, self.scored_rows, target=target, cluster=cluster, **pinned)
        self.next(self.end)

    @step
    def end(self):
        """Say where the predictions are."""
        self.summary = f"""
data         {self.scored_rows}, {self.split or "all splits"}
model        {self.scored_by.uri}
predictions  {self.predictions.table}, {self.predictions.new_rows:,} new of {self.predictions.rows:,} rows"""
        print(self.summary)


if __name__ == "__main__":
    PredictFlow()
