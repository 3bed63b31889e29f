"""A registered model and a table in; what each word did to the predictions out."""

from pathlib import Path

from metaflow import Config, FlowSpec, Parameter, card, current, mlflow_bridge, step, trigger_on_finish

from dlpipe.flows import clear_errors, portable
from dlpipe.flows.settings import check_asked, parse_toml, read_explain_settings
from dlpipe.terminal import visible


@trigger_on_finish(flow="PredictFlow")
@portable
@mlflow_bridge
@clear_errors
class ExplainFlow(FlowSpec):
    """Explain rows of a version of a table with a registered model, word by word.

    1. start    pin the version of the model and the version of the table; after a run of the predict flow, those
                of that run
    2. explain  attribute predictions to words with SHAP's Owen values, and append the numbers to a table in one
                commit: of a sample of the test split, or of the rows that the predict flow has just scored, or of
                every row of a split
    3. end      print where they are
    """

    settings = Config(
        "settings",
        default=str(Path(__file__).with_name("explain_flow.toml")),
        parser=parse_toml,
        help="TOML file with the section [explanation].",
    )
    model = Parameter("model", type=str, default="reviews", help="Such as models:/reviews@champion.")
    table = Parameter("table", type=str, default="reviews", help="Name or path of the Delta table.")
    table_version = Parameter("table-version", type=int, default=None, help="By default the latest.")
    rows = Parameter("rows", type=int, default=None, help="Rows of the test split to draw and explain.")
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
        self.explanation = read_explain_settings(self.settings.to_dict(), {"rows": self.rows})
        if before := predicted_before():
            self.explained_by, self.explained_rows = classifier_of(before.data.scored_by), before.data.scored_rows
        else:
            self.explained_by, self.explained_rows = pinned(self.model, self.table, self.table_version)
        if before and not self.split:
            scored = before.data.predictions
            self.new_rows = just_scored(scored, self.explanation.rows, seed=self.explanation.seed)
            self.explained_split = (
                f"{len(self.new_rows)} of {scored.new_rows:,} rows that {before.pathspec} scored"
            )
        else:
            check_rows(self.explained_rows, self.split or "test", whole="--split all")
        print(f"{self.explained_rows}, {self.explained_split}, with {self.explained_by.uri}")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of the test rows, or every row of a split."""
        from dlpipe.flows.cards import show_explanations, show_nothing

        if self.new_rows == []:
            self.explained, self.count = "nothing to explain", "no new row was scored"
            show_nothing(f"Nothing to explain: {self.explained_rows}", f"{self.explained_split}.")
        else:
            drawn = self.explain_rows()
            show_explanations(self.explanations, (), title=f"{self.explained}: {self.count}", drawn=drawn)
        self.next(self.end)

    @step
    def end(self):
        """Say where the explanations are."""
        self.summary = f"""
data         {self.explained_rows}, {self.explained_split}
model        {self.explained_by.uri}
explanations {self.explained}, {self.count}
card         python flows/explain_flow.py card view {current.run_id}/explain"""
        print(visible(self.summary))

    def explain_rows(self):
        """Explain what is asked for; return what the rows are."""
        from dlpipe.flows.pinning import table_named
        from dlpipe.inference import load_predictor

        predictor = load_predictor(self.explained_by.uri, engine="exact")
        target = table_named(self.target, self.explained_rows, "explanations")
        explain = self.explain_split if self.split else self.explain_sample
        self.count, drawn = explain(
            predictor, model=self.explained_by.uri, target=target, settings=self.explanation
        )
        if not any(row.parts for row in self.explanations.rows):
            self.count += ", of which none has a word"
        return drawn

    def check(self):
        """See that settings, model, tables and the cluster are good; called before a run begins."""
        from dlpipe.explain import explanation_schema
        from dlpipe.flows.pinning import CLASSIFIER, check_kind, check_rows, pinned, predicted_before, table_named
        from dlpipe.tables import check_target

        self.check_options()
        if not predicted_before():
            model, rows = pinned(self.model, self.table, self.table_version)
            check_kind(model, CLASSIFIER)
            check_rows(rows, self.split or "test", whole="--split all")
            check_target(table_named(self.target, rows, "explanations"), explanation_schema())
        self.check_services()

    def check_options(self):
        """See that options and settings are good; called before a deployment, too."""
        from dlpipe.flows.pinning import split_named

        split_named(self.split)
        check_asked(read_explain_settings(self.settings.to_dict(), {"rows": self.rows}), self.split)

    def check_services(self):
        """See that MLflow and Ray answer; called before a run is resumed, too."""
        from dlpipe.cluster import find
        from dlpipe.tracking import open_store

        open_store()
        find(self.ray_address)

    def explain_sample(self, predictor, **options):
        """Explain rows that are drawn from the test split or the new rows; return how many and what they are."""
        from dlpipe.explain import explain_table

        self.explanations, self.explained = explain_table(
            predictor, self.explained_rows, among=self.new_rows, **options
        )
        drawn = (
            "drawn from the test split" if self.new_rows is None else "drawn from the rows that were just scored"
        )
        return f"words of {len(self.explanations.rows)} rows", drawn

    def explain_split(self, predictor, **options):
        """Explain every row of the split, on a cluster if there is one; return as above."""
        from dlpipe.cluster import join
        from dlpipe.explain import explain_all

        split = None if self.split == "all" else self.split
        with join(self.ray_address) as cluster:
            each = cluster.each if cluster else map
            done = explain_all(predictor, self.explained_rows, split=split, each=each, **options)
        self.explanations, self.explained = done.sample, done.table
        return f"words of {done.rows:,} rows, {done.new_rows:,} new", f"from {self.explained_split}"


if __name__ == "__main__":
    ExplainFlow()
