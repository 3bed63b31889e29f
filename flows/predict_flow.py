"""A registered model and a table in; a table of predictions out."""

from metaflow import Parameter, card, current, mlflow_bridge, schedule, step

from dlpipe.flows import LifeCycleFlow, print_summary


@schedule(hourly=True)
@mlflow_bridge
class PredictFlow(LifeCycleFlow):
    """Score the rows of a table that are new since the last run with a registered model or pipeline, each once.

    1. start   pin the version of the model, the version of the table, and up to where rows were scored
    2. score   append the predictions to a table in one commit
    3. end     print where they are
    """

    model = Parameter(
        "model", type=str, default="reviews", help="Registered model, such as models:/reviews@champion."
    )
    table = Parameter("table", type=str, default="reviews", help="Name or path of the Delta table.")
    table_version = Parameter(
        "table-version", type=int, default=None, help="Version of the table; by default the latest."
    )
    all_rows = Parameter("all-rows", type=bool, default=False, help="Score every row, not only new ones.")
    split = Parameter("split", type=str, default=None, help="Score every row of train, valid or test.")
    target = Parameter("target", type=str, default=None, help="Table of the predictions.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to score on (not pipelines).")

    @step
    def start(self):
        """Find the model and the table, and pin both, and where the last run ended."""
        from dlpipe.flows.pinning import pin
        from dlpipe.flows.scoring import choose_answers_table
        from dlpipe.inference import find_scored_version

        self.scored_by, self.scored_rows = pin(self.model, self.table, self.table_version)
        self.scored_into = choose_answers_table(self.scored_by, self.scored_rows, self.target)
        self.which = self.split or ("all splits" if self.all_rows else "new rows")
        self.until = find_scored_version(self.scored_into, self.scored_rows, self.scored_by)
        print(f"{self.scored_rows}, {self.scored_rows.rows:,} rows, {self.which}, with {self.scored_by.uri}")
        self.next(self.score)

    @card(type="blank")
    @step
    def score(self):
        """Score the rows; one commit holds all of them."""
        from dlpipe.flows.cards import show_predictions
        from dlpipe.flows.scoring import score_rows

        self.predictions = score_rows(
            self.scored_by,
            self.scored_rows,
            into=self.scored_into,
            until=self.until,
            split=self.split,
            all_rows=self.all_rows,
            ray_address=self.ray_address,
        )
        show_predictions(self.predictions, rows=self.scored_rows, model=self.scored_by)
        self.next(self.end)

    @step
    def end(self):
        """Print where the predictions are."""
        done = self.predictions
        nothing = None if done.rows else f"{self.scored_rows} has no rows, so nothing was scored"
        self.summary = print_summary(
            outcome=nothing or f"{done.new_rows:,} new rows scored",
            data=f"{self.scored_rows}, {self.which}",
            model=self.scored_by.uri,
            predictions=f"{done.table}, {done.new_rows:,} new of {done.rows:,} rows",
            look=nothing or done.doubt,
            card=f"python flows/predict_flow.py card view {current.run_id}/score",
        )

    def check_options(self):
        """See that the options are good; called before a deployment, too."""
        from dlpipe.settings import check_name
        from dlpipe.tables import SPLITS

        if self.split:
            check_name(self.split, [*SPLITS], what="split", where="The table")

    def check_inputs(self):
        """See that the model and the tables are there; called before a run begins."""
        from dlpipe.flows.pinning import pin
        from dlpipe.flows.scoring import check_scoring, choose_answers_table

        model, rows = pin(self.model, self.table, self.table_version)
        check_scoring(model, rows, into=choose_answers_table(model, rows, self.target), split=self.split)


if __name__ == "__main__":
    PredictFlow()
