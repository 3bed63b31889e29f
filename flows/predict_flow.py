"""A registered model and a table in; a table of predictions out."""

from metaflow import Parameter, mlflow_bridge, schedule, step

from dlpipe.flows import LifeCycleFlow, print_summary


@schedule(hourly=True)
@mlflow_bridge
class PredictFlow(LifeCycleFlow):
    """Score the rows of a table that are new since the last run with a registered model or pipeline, each once.

    1. start   pin the version of the model, the version of the table, and up to where rows were scored
    2. score   append the predictions to a table in one commit
    3. end     print where they are
    """

    model = Parameter("model", type=str, default="reviews", help="Such as models:/reviews@champion.")
    table = Parameter("table", type=str, default="reviews", help="Name or path of the Delta table.")
    table_version = Parameter("table-version", type=int, default=None, help="By default the latest.")
    all_rows = Parameter("all-rows", type=bool, default=False, help="Score every row, not only new ones.")
    split = Parameter("split", type=str, default=None, help="Score every row of train, valid or test.")
    target = Parameter("target", type=str, default=None, help="Table of the predictions.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to score on (not pipelines).")

    @step
    def start(self):
        """Find the model and the table, and pin both, and where the last run ended."""
        from dlpipe.flows.pinning import pinned
        from dlpipe.inference import scored_until

        self.scored_by, self.scored_rows = pinned(self.model, self.table, self.table_version)
        self.scored_into = self.target_of(self.scored_by, self.scored_rows)
        self.which = self.split or ("all splits" if self.all_rows else "new rows")
        self.until = scored_until(self.scored_into, self.scored_rows, self.scored_by)
        print(f"{self.scored_rows}, {self.scored_rows.rows:,} rows, {self.which}, with {self.scored_by.uri}")
        self.next(self.score)

    @step
    def score(self):
        """Score the rows; one commit holds all of them."""
        from dlpipe.cluster import join
        from dlpipe.inference import is_pipeline, score_new, score_whole, scorer_of

        make, work = scorer_of(self.scored_by), {"model": self.scored_by, "target": self.scored_into}
        with join(None if is_pipeline(self.scored_by) else self.ray_address) as cluster:
            work["cluster"] = cluster
            if self.all_rows or self.split:
                self.predictions = score_whole(make, self.scored_rows, split=self.split, **work)
            else:
                self.predictions = score_new(make, self.scored_rows, until=self.until, **work)
        self.next(self.end)

    @step
    def end(self):
        """Say where the predictions are."""
        done = self.predictions
        nothing = None if done.rows else f"{self.scored_rows} has no rows, so nothing was scored"
        self.summary = print_summary(
            data=f"{self.scored_rows}, {self.which}",
            model=self.scored_by.uri,
            predictions=f"{done.table}, {done.new_rows:,} new of {done.rows:,} rows",
            look=nothing or done.doubt,
        )

    def check_options(self):
        """See that the options are good; called before a deployment, too."""
        from dlpipe.settings import check_name
        from dlpipe.tables import SPLITS

        if self.split:
            check_name(self.split, [*SPLITS], what="split", where="The table")

    def check_inputs(self):
        """See that the model and the tables are there; called before a run begins."""
        from dlpipe.flows.pinning import CLASSIFIER, PIPELINE, check_kind, check_rows, pinned
        from dlpipe.inference import answer_schema, is_pipeline, prediction_schema
        from dlpipe.tables import check_target
        from dlpipe.task import find_task

        model, rows = pinned(self.model, self.table, self.table_version)
        check_kind(model, CLASSIFIER, PIPELINE)
        check_rows(rows, self.split, whole="--all-rows true")
        schema = answer_schema if is_pipeline(model) else prediction_schema
        check_target(self.target_of(model, rows), schema(find_task(model.task)))

    def target_of(self, model, rows):
        """Return the table of the answers: that of the option, or the one that belongs to the rows."""
        from dlpipe.flows.pinning import table_named
        from dlpipe.inference import is_pipeline

        return table_named(self.target, rows, "answers" if is_pipeline(model) else "predictions")


if __name__ == "__main__":
    PredictFlow()
