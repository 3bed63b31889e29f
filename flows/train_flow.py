"""Text with labels in; a registered, scored and explained model out."""

from pathlib import Path

from metaflow import (
    Config,
    FlowSpec,
    Parameter,
    card,
    checkpoint,
    current,
    mlflow_bridge,
    retry,
    schedule,
    step,
    trigger,
)
from metaflow.metaflow_git import get_repository_info
from metaflow.packaging_sys import MetaflowCodeContent

from dlpipe.flows import TaskCheckpoints, clear_errors, portable, without_cards
from dlpipe.flows.settings import OPTIONS, parse_toml, read_flow_settings
from dlpipe.terminal import visible

CATALOGUE = Path(__file__).with_name("datasets.toml")


@schedule(weekly=True)
@trigger(event={"name": "model-drifted", "parameters": {name: name for name in ("table", "model", "retrain")}})
@portable
@mlflow_bridge
@clear_errors
@without_cards
class TrainFlow(FlowSpec):
    """Train a text classifier and take it through its whole life.

    1. start      ingest labelled text into a pinned version of a Delta table; a run that drift started takes the
                  rows with labels that the table has by now
    2. tune       search for the best settings with Ray Tune
    3. train      fine-tune the backbone with lightning-flash, going on from a checkpoint if killed
    4. evaluate   score it on the test split, beside a TF-IDF baseline
    5. register   register the version as challenger with its engines, its pipeline and its explainer; the gate
                  decides whether they become champions
    6. predict    score the whole table version into a predictions table
    7. explain    attribute predictions to words with SHAP
    8. end        print where everything is
    """

    settings = Config(
        "settings",
        default=str(Path(__file__).with_name("train_flow.toml")),
        parser=parse_toml,
        help="TOML file with the settings that options override.",
    )
    data = Parameter("data", type=str, default=None, help="CSV, JSON Lines, Parquet or Delta table, split here.")
    train_data = Parameter("train-data", type=str, default=None, help="Source of the train split.")
    valid_data = Parameter("valid-data", type=str, default=None, help="Source of the valid split.")
    test_data = Parameter("test-data", type=str, default=None, help="Source of the test split.")
    dataset = Parameter("dataset", type=str, default=None, help="Public data set to download, such as imdb.")
    text_column = Parameter("text-column", type=str, default=None, help="Column with the text.")
    label_column = Parameter("label-column", type=str, default=None, help="Column with the label.")
    separator = Parameter("separator", type=str, default=None, help="Of CSV files; by default it is found.")
    encoding = Parameter("encoding", type=str, default=None, help="Of text files, such as cp1252.")
    fold_labels = Parameter("fold-labels", type=bool, default=None, help="Labels that look alike are one class.")
    table = Parameter("table", type=str, default=None, help="Name of the Delta table.")
    retrain = Parameter("retrain", type=bool, default=False, help="Ingest nothing: train on the table as it is.")
    model = Parameter("model", type=str, default=None, help="Name in the model registry.")
    trials = Parameter("trials", type=int, default=None, help="Settings to try; 0 skips tuning.")
    backbone = Parameter("backbone", type=str, default=None, help="Folder or Hugging Face id.")
    strategy = Parameter("strategy", type=str, default=None, help="freeze, no_freeze, freeze_unfreeze, ...")
    epochs = Parameter("epochs", type=int, default=None, help="Epochs of the training.")
    batch_size = Parameter("batch-size", type=int, default=None, help="Rows of a batch.")
    learning_rate = Parameter("learning-rate", type=float, default=None, help="The highest learning rate.")
    max_length = Parameter("max-length", type=int, default=None, help="Tokens of a text that are read.")
    seed = Parameter("seed", type=int, default=None, help="Seed of everything that is drawn.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to tune and score on.")

    @card(type="blank")
    @step
    def start(self):
        """Ingest: one atomic commit, or none if nothing changed."""
        from dlpipe.flows.cards import show_data
        from dlpipe.task import find_task

        chosen = self.chosen()
        self.ingest = self.data_there(chosen) if self.retrain else self.data_ingested(chosen)
        self.data_version = self.ingest.table
        find_task().target.check_gate(chosen.gate, self.ingest.labels)
        show_data(self.ingest)
        print(
            f"{self.data_version}: {dict(self.ingest.split_rows)}, {sum(self.ingest.bad_rows.values())} bad rows",
            *self.ingest.notes,
            sep="\n",
        )
        self.next(self.tune)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @card(type="blank", id="trials")
    @step
    def tune(self):
        """Try settings from the search space; the best ones feed the training."""
        from dlpipe.bridge.trials import TrialRuns
        from dlpipe.cluster import join
        from dlpipe.flows.cards import show_trials
        from dlpipe.tuning import tune

        chosen = self.chosen()
        self.tuned_on = self.data_version
        with join(self.ray_address) as cluster:
            self.tuned = tune(
                self.tuned_on,
                space=chosen.space,
                settings=chosen.tuning,
                training=chosen.training,
                callbacks=[TrialRuns()],
                checkpoints=TaskCheckpoints(),
                cluster=cluster,
            )
        self.training = self.tuned.apply(chosen.training).settled()
        show_trials(self.tuned)
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @card(type="blank", id="training", refresh_interval=2)
    @step
    def train(self):
        """Fine-tune on the train split; the best epoch on the valid split is the model."""
        from dlpipe.flows.cards import LearningCurves
        from dlpipe.training import fit

        self.trained_on = self.data_version
        fitted = fit(
            self.trained_on,
            settings=self.training,
            checkpoints=TaskCheckpoints(),
            on_epoch=LearningCurves().add,
        )
        self.trained_by = {"metaflow.pathspec": current.pathspec, "metaflow.attempt": str(current.retry_count)}
        self.text_model, self.epoch_scores, self.best_epoch = fitted.model, fitted.epochs, fitted.best_epoch
        self.weights = fitted.model.digest
        print(f"weights {self.weights}, epoch {fitted.best_epoch}")
        self.next(self.evaluate)

    @card(type="blank")
    @step
    def evaluate(self):
        """Score model and baseline on the test split, with bootstrap intervals."""
        from dlpipe.evaluation import evaluate_baseline, evaluate_model
        from dlpipe.flows.cards import show_evaluation
        from dlpipe.task import find_task, open_predictor

        predictor = open_predictor(self.text_model)
        self.evaluated_on = self.data_version
        self.evaluation = evaluate_model(predictor, self.evaluated_on, seed=self.training.seed)
        self.baseline = evaluate_baseline(self.evaluated_on, beside=predictor, seed=self.training.seed)
        show_evaluation(self.evaluation, self.baseline, find_task(self.text_model.task).target)
        print(f"model    {self.evaluation.line()}\nbaseline {self.baseline.line()}")
        self.next(self.register)

    @step
    def register(self):
        """Register the version with engines, pipeline and explainer; the gate decides about the champions."""
        from dlpipe.evaluation import gate_tag
        from dlpipe.explain import register_explainer
        from dlpipe.inference import register_pipeline
        from dlpipe.registry import KIND, log_and_register, promote_judged, register_family, resolve
        from dlpipe.tables import read_table
        from dlpipe.task import find_task

        chosen, inputs = self.chosen(), find_task(self.text_model.task).inputs
        columns = list(inputs.columns(self.data_version, self.text_model.card))
        example = inputs.read_rows(read_table(self.data_version, split="test", columns=columns)[:2])
        valid = read_table(self.data_version, split="valid", columns=[*columns, "label"])
        served = inputs.export_engines(self.text_model, inputs.read_rows(valid), valid["label"].to_pylist())
        self.engines = served.engines
        engine_tags = served.engines.tags() if served.engines else {}
        shared = {"example": example, "challenger": False}
        makers = []
        if inputs.one_text:
            makers.append(lambda made: register_pipeline(made, settings=chosen.pipeline, **shared))
        if not inputs.not_explained:
            explanation = {"settings": chosen.explanation, **shared}
            makers.append(lambda made: register_explainer(made, self.text_model, **explanation))
        classifier, *companions = register_family(
            chosen.registry.model,
            lambda: log_and_register(
                served,
                name=chosen.registry.model,
                params=vars(self.training),
                metrics={f"test_{name}": value for name, value in self.evaluation.metrics.items()},
                tags={**self.lineage(), **gate_tag(chosen.gate), **engine_tags},
                **shared,
            ),
            makers,
        )
        self.verdict, self.promotion = promote_judged(classifier, self.verdict_against, who=current.username)
        self.model_version = self.promotion.version
        kinds = {version.tags[KIND]: resolve(version.uri) for version in companions}
        self.pipeline_version, self.explainer_version = kinds.get("pipeline"), kinds.get("explainer")
        print(visible(f"{self.engines or 'engine torch'}\n{self.model_version.uri}: {self.verdict.reason}"))
        print(visible(str(self.promotion)))
        self.next(self.predict)

    @step
    def predict(self):
        """Score every row of the table version in one commit; nothing is added if that was done before."""
        from dlpipe.cluster import join
        from dlpipe.inference import load_predictor, score

        self.scored_by, self.scored_rows = self.model_version, self.data_version
        with join(self.ray_address) as cluster:
            self.predictions = score(
                load_predictor(self.scored_by.uri),
                self.scored_rows,
                model=self.scored_by,
                target=self.beside("predictions"),
                split=None,
                cluster=cluster,
            )
        print(f"{self.predictions.table}: {self.predictions.new_rows} new of {self.predictions.rows} rows")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of test rows and the worst mistakes, word by word."""
        from dlpipe.explain import explain_table
        from dlpipe.flows.cards import show_explanations
        from dlpipe.task import open_predictor

        self.explained_by, self.explained_rows = self.model_version, self.data_version
        self.explanations, self.explained = explain_table(
            open_predictor(self.text_model),
            self.explained_rows,
            mistakes=[mistake.row_id for mistake in self.evaluation.mistakes],
            target=self.beside("explanations"),
            model=self.explained_by.uri,
            settings=self.chosen().explanation,
        )
        show_explanations(self.explanations, self.evaluation.mistakes)
        print(f"{self.explained}: words of {len(self.explanations.rows)} rows")
        self.next(self.end)

    @step
    def end(self):
        """Say where everything is."""
        self.summary = f"""
data         {self.data_version}, {self.data_version.rows:,} rows
model        {self.evaluation.line()}, {self.evaluation.line("macro_f1")}
baseline     {self.baseline.line()}, {self.baseline.line("macro_f1")}
registered   {self.model_version.line()}
pipeline     {self.pipeline_version.line() if self.pipeline_version else "none"}
explainer    {self.explainer_version.line() if self.explainer_version else "none"}
weights      {self.weights}
gate         {self.verdict.reason}; {self.promotion}
predictions  {self.predictions.table}, {self.predictions.new_rows:,} new rows
explanations {self.explained}
cards        python flows/train_flow.py card view {current.run_id}/evaluate (or start, explain)
portal       dlpipe ui"""
        print(visible(self.summary))

    def check(self):
        """See that settings, sources, tables, backbone and services are good; called before a run begins."""
        from dlpipe.explain import explanation_schema
        from dlpipe.inference import check_languages, prediction_schema
        from dlpipe.registry import check_name_free
        from dlpipe.tables import check_sources, check_target, table_at
        from dlpipe.task import find_task
        from dlpipe.task.texts import find_backbone

        self.check_options()
        chosen = self.chosen()
        check_name_free(chosen.registry.model)
        check_languages(chosen.pipeline)
        find_backbone(chosen.training.backbone, allow_download=chosen.training.allow_download)
        if self.retrain:
            table_at(chosen.data.table)
        elif not self.dataset:  # what is downloaded is not here yet
            check_sources(self.sources(), chosen.data.table, settings=chosen.data)
        check_target(f"{chosen.data.table}_predictions", prediction_schema(find_task()))
        check_target(f"{chosen.data.table}_explanations", explanation_schema())
        self.check_services()

    def check_options(self):
        """See that options and settings are good and go together; called before a deployment, too."""
        chosen = self.chosen()
        if not self.retrain and not self.dataset:
            files = {"data": self.data, "train": self.train_data, "valid": self.valid_data, "test": self.test_data}
            chosen.sources(**files).given()

    def check_services(self):
        """See that MLflow and Ray answer and let a run do its work; called before it is resumed, too."""
        from dlpipe.cluster import find
        from dlpipe.tracking import open_store

        open_store().check(self.name, model=self.chosen().registry.model)
        find(self.ray_address)

    def chosen(self):
        """Return the settings with the options in place; a public data set brings its column names."""
        names = [name for section in OPTIONS.values() for name in section]
        options = {name: getattr(self, name) for name in names}
        if self.dataset:
            from dlpipe.datasets import find_dataset

            known = find_dataset(self.dataset, catalogue=CATALOGUE)
            options["text_column"] = self.text_column or known.text_column
            options["label_column"] = self.label_column or known.label_column
        return read_flow_settings(self.settings.to_dict(), options)

    def data_ingested(self, chosen):
        """Make the sources' rows, and those that were appended, the table's content; return what was done."""
        from dlpipe.tables import ingest

        return ingest(self.sources(), chosen.data.table, settings=chosen.data)

    def data_there(self, chosen):
        """Return what the table holds, which must have labels that the champion has not learnt from."""
        from dlpipe.monitoring import check_new_labels
        from dlpipe.registry import champion
        from dlpipe.tables import stored

        there = stored(chosen.data.table)
        check_new_labels(there.table, champion(chosen.registry.model))
        return there

    def sources(self):
        """Return where the rows come from, downloaded first if a public data set is asked for."""
        if self.dataset:
            from dlpipe.datasets import fetch_dataset

            return fetch_dataset(self.dataset, catalogue=CATALOGUE, folder=Path("data/downloads"))
        files = {"data": self.data, "train": self.train_data, "valid": self.valid_data, "test": self.test_data}
        return self.chosen().sources(**files)

    def verdict_against(self, champion):
        """Return what the gate says of the model beside ``champion``, which is scored on the same test rows."""
        from dlpipe.evaluation import evaluate_champion, judge
        from dlpipe.task import find_task, open_predictor

        rival, task = None, find_task(self.text_model.task)
        if champion is not None:
            rival = evaluate_champion(
                champion,
                self.data_version,
                candidate=self.evaluation,
                open_candidate=lambda: open_predictor(self.text_model),
                task=task,
                seed=self.training.seed,
            )
        return judge(
            self.evaluation,
            baseline=self.baseline,
            champion=rival,
            thresholds=self.chosen().gate,
            target=task.target,
        )

    def beside(self, kind):
        """Return the name of the table of this kind that belongs to the data table."""
        return f"{self.data_version.path}_{kind}"

    def lineage(self):
        """Return what a model version names: the task attempt that trained it, its code, data and seed."""
        # code that an orchestrator has frozen carries the commit that it is of; its folder is no repository
        code = MetaflowCodeContent.get_info() or get_repository_info(Path(__file__).resolve().parent)
        return {
            **self.trained_by,
            "git.commit": code.get("commit_sha") or "unknown",
            "git.uncommitted": str(code.get("has_uncommitted_changes", "unknown")).lower(),
            "delta.table": self.data_version.path,
            "delta.version": str(self.data_version.version),
            "delta.digest": self.data_version.digest,
            "seed": str(self.training.seed),
        }


if __name__ == "__main__":
    TrainFlow()
