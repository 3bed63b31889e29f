"""Rows with labels in; a registered, scored and explained model out."""

from metaflow import Parameter, card, checkpoint, current, mlflow_bridge, retry, schedule, step, trigger

from dlpipe.flows import LifeCycleFlow, TaskCheckpoints, print_summary
from dlpipe.flows.settings import TrainFlowSettings, settings_file


@schedule(weekly=True)
@trigger(event={"name": "model-drifted", "parameters": {name: name for name in ("table", "model", "retrain")}})
@mlflow_bridge
class TrainFlow(LifeCycleFlow):
    """Train a model and take it through its whole life.

    1. start      ingest rows with labels into a pinned version of a Delta table; a run that drift started takes
                  the rows with labels that the table has by now
    2. tune       search for the best settings with Ray Tune
    3. train      train the network, going on from a checkpoint if killed
    4. evaluate   score it on the test split, beside a plain baseline
    5. register   register the version as challenger with its engines, its pipeline and its explainer; the gate
                  decides whether they become champions
    6. predict    score the whole table version into a predictions table
    7. explain    attribute predictions to the parts of rows (words, columns) with SHAP's values
    8. end        print where everything is
    """

    settings = settings_file(__file__, TrainFlowSettings)
    retrain = Parameter("retrain", type=bool, default=False, help="Ingest nothing: train on the table as it is.")
    ray_address = Parameter("ray-address", type=str, default=None, help="Ray cluster to tune and score on.")

    @card(type="blank")
    @step
    def start(self):
        """Ingest: one atomic commit, or none if nothing changed."""
        from dlpipe.flows.cards import show_data
        from dlpipe.flows.data import ingest_rows

        self.ingest = ingest_rows(self.read_settings(), retrain=self.retrain)
        self.data_version = self.ingest.table
        show_data(self.ingest, max_length=getattr(self.read_settings().training, "max_length", 0))
        self.next(self.tune)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @card(type="blank", id="trials")
    @step
    def tune(self):
        """Try settings from the search space; the best ones feed the training."""
        from dlpipe.flows.cards import show_trials
        from dlpipe.flows.tuning import search_settings

        self.tuned_on = self.data_version
        self.tuned = search_settings(self.tuned_on, self.read_settings(), ray_address=self.ray_address)
        self.training = self.tuned.apply(self.read_settings().training).resolve()
        self.params = self.describe_settings(training=self.training)
        show_trials(self.tuned)
        self.next(self.train)

    @retry(times=1, minutes_between_retries=0)
    @checkpoint(show_card=False)
    @card(type="blank", id="training", refresh_interval=2)
    @step
    def train(self):
        """Train on the train split; the best epoch on the valid split is the model."""
        from dlpipe.flows.cards import LearningCurves
        from dlpipe.flows.former import find_former
        from dlpipe.flows.registering import make_attempt_tags
        from dlpipe.training import fit

        self.trained_on, self.trained_by = self.data_version, make_attempt_tags()
        task, former = self.read_settings().task, find_former(self.read_settings().registry.model)
        curves = LearningCurves(task.inputs.list_settings(self.training, self.trained_on), former=former)
        fitted = fit(
            self.trained_on,
            task=task,
            settings=self.training,
            checkpoints=TaskCheckpoints(),
            on_epoch=curves.add,
            on_loss=curves.add_loss,
        )
        curves.end()
        self.trained_model, self.epoch_scores, self.best_epoch = fitted.model, fitted.epochs, fitted.best_epoch
        self.weights, self.trained_in = fitted.model.digest, fitted.domain
        self.trained_before_in = fitted.earlier_domains
        print(f"weights {self.weights}, epoch {fitted.best_epoch}")
        self.next(self.evaluate)

    @card(type="blank")
    @step
    def evaluate(self):
        """Score model and baseline on the test split, with bootstrap intervals."""
        from dlpipe.evaluation import evaluate_baseline, evaluate_model
        from dlpipe.flows.cards import show_evaluation
        from dlpipe.task import open_predictor

        predictor, seed = open_predictor(self.trained_model), self.training.seed
        self.evaluated_on = self.data_version
        self.evaluation = evaluate_model(predictor, self.evaluated_on, seed=seed)
        self.scores = self.evaluation.metrics
        self.baseline = evaluate_baseline(self.evaluated_on, beside=predictor, seed=seed)
        show_evaluation(
            self.evaluation,
            self.baseline,
            model=self.trained_model,
            rows=self.evaluated_on,
            gate=self.read_settings().gate,
            name=self.read_settings().registry.model,
        )
        print(f"model    {self.evaluation.line()}\nbaseline {self.baseline.line()}")
        self.next(self.register)

    @card(type="blank")
    @step
    def register(self):
        """Register the version with engines, pipeline and explainer; the gate decides about the champions."""
        from dlpipe.flows.cards import show_verdict
        from dlpipe.flows.registering import make_code_tags, register_and_judge

        self.compared_on = self.data_version
        done = register_and_judge(
            self.trained_model,
            rows=self.compared_on,
            evaluation=self.evaluation,
            baseline=self.baseline,
            training=self.training,
            settings=self.read_settings(),
            tags={**self.trained_by, **self.trained_in.to_tags(), **make_code_tags(self)},
        )
        self.model_version, self.pipeline_version = done.classifier, done.pipeline
        self.explainer_version, self.engines = done.explainer, done.engines
        self.verdict, self.promotion = done.verdict, done.promotion
        show_verdict(
            done,
            self.evaluation,
            self.baseline,
            model=self.trained_model,
            rows=self.data_version,
            gate=self.read_settings().gate,
        )
        print(done)
        self.next(self.predict)

    @card(type="blank")
    @step
    def predict(self):
        """Score every row of the table version in one commit; nothing is added if that was done before."""
        from dlpipe.flows.cards import show_predictions
        from dlpipe.flows.scoring import score_every_row

        self.scored_by, self.scored_rows = self.model_version, self.data_version
        self.predictions = score_every_row(self.scored_by, self.scored_rows, ray_address=self.ray_address)
        show_predictions(self.predictions, rows=self.scored_rows, model=self.scored_by)
        print(f"{self.predictions.table}: {self.predictions.new_rows} new of {self.predictions.rows} rows")
        self.next(self.explain)

    @card(type="blank")
    @step
    def explain(self):
        """Explain a sample of test rows and the worst mistakes, part by part: a text word by word."""
        from dlpipe.flows.explaining import explain_evaluated, show_explained

        self.explained_by, self.explained_rows = self.model_version, self.data_version
        found = explain_evaluated(
            self.trained_model,
            self.explained_rows,
            evaluation=self.evaluation,
            registered=self.explained_by,
            settings=self.read_settings().explanation,
        )
        self.explanations, self.explained = found.explanations, found.table or f"none: {found.count}"
        show_explained(found, self.evaluation.mistakes)
        print(found)
        self.next(self.end)

    @step
    def end(self):
        """Print where everything is."""
        self.summary = print_summary(
            outcome=f"{self.evaluation.lines()[0]}; {self.promotion}",
            data=f"{self.data_version}, {self.data_version.rows:,} rows",
            model=", ".join(self.evaluation.lines()[:2]),
            baseline=", ".join(self.baseline.lines()[:2]),
            registered=self.model_version,
            pipeline=self.pipeline_version,
            explainer=self.explainer_version,
            weights=self.weights,
            gate=f"{self.verdict.reason}; {self.promotion}",
            predictions=f"{self.predictions.table}, {self.predictions.new_rows:,} new rows",
            explanations=self.explained,
            cards=f"python flows/train_flow.py card view {current.run_id}/evaluate (or register, explain)",
            portal="dlpipe ui",
        )

    def check_inputs(self):
        """See that names, backbone, sources and tables are good; called before a run begins."""
        from dlpipe.flows.registering import check_training

        check_training(self.read_settings(), retrain=self.retrain)


if __name__ == "__main__":
    TrainFlow()
