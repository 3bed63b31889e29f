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
    model = Parameter("model", type=str, default="reviews", help="Such as models:/reviews@champion.")
    table = Parameter("table", type=str, default="reviews", help="Name or path of the Delta table.")
    table_version = Parameter("table-version", type=int, default=None, help="By default the latest.")
    split = Parameter("split", type=str, default=None, help="Explain all of train, valid, test or all.")
    target = Parameter("target", type=str, default=None, help="Table of the explanations.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to explain a split on.")

    @step
    def start(self):
        """Find the model and the table, and pin both."""
        from dlpipe.flows.pinning import (
            check_rows,
            classifier_of,
            just_scored,
            pinned,
            predicted_before,
            split_named,
        )

        self.explained_split, self.new_rows = split_named(self.split), None
        self.explanation = self.chosen().explanation
        if before := predicted_before():
            self.explained_by, self.explained_rows = classifier_of(before.data.scored_by), before.data.scored_rows
        else:
            self.explained_by, self.explained_rows = pinned(self.model, self.table, self.table_version)
        if before and not self.split:
            scored = before.data.predictions
            self.new_rows = just_scored(scored, self.explanation.rows, seed=self.explanation.seed)
            some = f"{len(self.new_rows)} of {scored.new_rows:,}"
            self.explained_split = f"{some} rows that {before.pathspec} scored"
        else:
            check_rows(self.explained_rows, self.split or "test", whole="--split all")
        print(f"{self.explained_rows}, {self.explained_split}, with {self.explained_by.uri}")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of the test rows, or every row of a split."""
        from dlpipe.flows.cards import show_explanations, show_nothing
        from dlpipe.flows.explaining import explain_asked, why_not

        reason = "no new row was scored" if self.new_rows == [] else why_not(self.explained_by)
        if reason:
            self.explained, self.count = "nothing to explain", reason
            show_nothing(f"Nothing to explain: {self.explained_rows}", f"{self.explained_split}: {reason}.")
        else:
            found = explain_asked(
                self.explained_by,
                self.explained_rows,
                split=self.split,
                among=self.new_rows,
                target=self.target,
                settings=self.explanation,
                ray_address=self.ray_address,
            )
            self.explanations, self.explained, self.count = found.explanations, found.table, found.count
            show_explanations(found.explanations, (), title=f"{found.table}: {found.count}", drawn=found.drawn)
        self.next(self.end)

    @step
    def end(self):
        """Say where the explanations are."""
        self.summary = print_summary(
            data=f"{self.explained_rows}, {self.explained_split}",
            model=self.explained_by.uri,
            explanations=f"{self.explained}, {self.count}",
            card=f"python flows/explain_flow.py card view {current.run_id}/explain",
        )

    def check_options(self):
        """See that options and settings are good; called before a deployment, too."""
        from dlpipe.flows.explaining import check_asked
        from dlpipe.flows.pinning import split_named

        split_named(self.split)
        check_asked(self.chosen().explanation, self.split)

    def check_inputs(self):
        """See that the model and the tables are there; called before a run begins."""
        from dlpipe.explain import explanation_schema
        from dlpipe.flows.pinning import CLASSIFIER, check_kind, check_rows, pinned, predicted_before, table_named
        from dlpipe.tables import check_target

        if not predicted_before():
            model, rows = pinned(self.model, self.table, self.table_version)
            check_kind(model, CLASSIFIER)
            check_rows(rows, self.split or "test", whole="--split all")
            check_target(table_named(self.target, rows, "explanations"), explanation_schema())


if __name__ == "__main__":
    ExplainFlow()
