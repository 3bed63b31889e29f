"""A registered model and a table in; what each part of a row did to the predictions out."""

from metaflow import Parameter, card, current, mlflow_bridge, step, trigger_on_finish

from dlpipe.flows import LifeCycleFlow, print_summary
from dlpipe.flows.settings import ExplainFlowSettings, settings_file


@trigger_on_finish(flow="PredictFlow")
@mlflow_bridge
class ExplainFlow(LifeCycleFlow):
    """Explain rows of a version of a table with a registered model, part by part: a text word by word.

    1. start    pin the version of the model and the version of the table; after a run of the predict flow, those
                of that run
    2. explain  attribute predictions to parts with SHAP's Owen values, and append the numbers to a table in one
                commit: of a sample of the test split, or of the rows that the predict flow has just scored, or of
                every row of a split
    3. end      print where they are
    """

    settings = settings_file(__file__, ExplainFlowSettings)
    model = Parameter(
        "model", type=str, default="reviews", help="Registered model, such as models:/reviews@champion."
    )
    table = Parameter("table", type=str, default="reviews", help="Name or path of the Delta table.")
    table_version = Parameter(
        "table-version", type=int, default=None, help="Version of the table; by default the latest."
    )
    split = Parameter("split", type=str, default=None, help="Explain every row of train, valid, test or all.")
    target = Parameter("target", type=str, default=None, help="Table of the explanations.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to explain a split on.")

    @step
    def start(self):
        """Find the model and the table, and pin both."""
        from dlpipe.flows.explaining import choose_rows

        self.explanation = self.read_settings().explanation
        self.params = self.describe_settings()
        asked = choose_rows(
            self.model, self.table, self.table_version, split=self.split, settings=self.explanation
        )
        self.explained_by, self.explained_rows = asked.model, asked.rows
        self.explained_split, self.new_rows = asked.words, asked.among
        print(f"{self.explained_rows}, {self.explained_split}, with {self.explained_by.uri}")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of the test rows, or every row of a split."""
        from dlpipe.flows.explaining import explain_rows, show_explained

        found = explain_rows(
            self.explained_by,
            self.explained_rows,
            split=self.split,
            among=self.new_rows,
            target=self.target,
            settings=self.explanation,
            ray_address=self.ray_address,
        )
        self.explanations, self.count = found.explanations, found.count
        self.explained = found.table or "nothing to explain"
        show_explained(found)
        self.next(self.end)

    @step
    def end(self):
        """Print where the explanations are."""
        self.summary = print_summary(
            outcome=f"explained: {self.count}",
            data=f"{self.explained_rows}, {self.explained_split}",
            model=self.explained_by.uri,
            explanations=f"{self.explained}, {self.count}",
            card=f"python flows/explain_flow.py card view {current.run_id}/explain",
        )

    def check_options(self):
        """See that options and settings are good; called before a deployment, too."""
        from dlpipe.flows.explaining import check_request
        from dlpipe.flows.pinning import describe_split

        describe_split(self.split)
        check_request(self.read_settings().explanation, self.split)

    def check_inputs(self):
        """See that the model and the tables are there; called before a run begins."""
        from dlpipe.flows.explaining import check_explaining
        from dlpipe.flows.pinning import find_trigger_run, pin

        if not find_trigger_run():
            model, rows = pin(self.model, self.table, self.table_version)
            check_explaining(model, rows, split=self.split, target=self.target)


if __name__ == "__main__":
    ExplainFlow()
