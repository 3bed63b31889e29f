"""A registered model and a table in; what each word did to the predictions out."""

from pathlib import Path

from clear_errors import clear_errors
from metaflow import Config, FlowSpec, Parameter, card, current, mlflow_bridge, step
from train_settings import parse_toml, read_explain_settings


@mlflow_bridge
@clear_errors
class ExplainFlow(FlowSpec):
    """Explain rows of a version of a table with a registered model, word by word.

    1. start    pin the version of the model and the version of the table
    2. explain  attribute predictions to words with SHAP, and append the numbers to a table in one commit
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
    target = Parameter("target", type=str, default=None, help="Table of the explanations.")

    @step
    def start(self):
        """Check the settings, find the model and the table, and pin both."""
        from pinning import pinned

        self.explanation = read_explain_settings(self.settings.to_dict(), {"rows": self.rows})
        self.explained_by, self.explained_rows = pinned(self.model, self.table, self.table_version)
        print(f"{self.explained_rows} with {self.explained_by.uri}")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of the test rows."""
        from cards import show_explanations
        from pinning import table_named

        from dlpipe.explain import explain_table
        from dlpipe.inference import load_predictor

        self.explanations, self.explained = explain_table(
            load_predictor(self.explained_by.uri, engine="exact"),
            self.explained_rows,
            model=self.explained_by.uri,
            target=table_named(self.target, self.explained_rows, "explanations"),
            settings=self.explanation,
        )
        show_explanations(self.explanations, ())
        self.next(self.end)

    @step
    def end(self):
        """Say where the explanations are."""
        self.summary = f"""
data         {self.explained_rows}, test
model        {self.explained_by.uri}
explanations {self.explained}, words of {len(self.explanations.rows)} rows
card         python flows/explain_flow.py card view {current.run_id}/explain"""
        print(self.summary)


if __name__ == "__main__":
    ExplainFlow()
