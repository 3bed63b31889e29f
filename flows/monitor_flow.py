"""Predictions in; whether the rows that came in still are like those of the training, and an event if not."""

from metaflow import Parameter, card, current, mlflow_bridge, step, trigger_on_finish

from dlpipe.flows import LifeCycleFlow, print_summary
from dlpipe.flows.settings import MonitorFlowSettings, settings_file

EVENT = "model-drifted"


@trigger_on_finish(flow="PredictFlow")
@mlflow_bridge
class MonitorFlow(LifeCycleFlow):
    """Compare the rows that were scored last with those that the model was trained on.

    1. start    pin the model, its training table and the predictions; after a run of the predict flow, those of
                that run; with --served, what servers were asked and answered
    2. compare  the rows, the predictions, and where labels have come in the accuracy or the error, as the model's
                task says; keep the numbers as a row of a table
    3. end      publish the event that starts a training, if the model drifted, and print what was found
    """

    settings = settings_file(__file__, MonitorFlowSettings)
    model = Parameter(
        "model", type=str, default="reviews", help="Registered model, such as models:/reviews@champion."
    )
    table = Parameter("table", type=str, default="reviews", help="The table whose rows are scored.")
    target = Parameter("target", type=str, default=None, help="Table of the predictions.")
    served = Parameter(
        "served", type=bool, default=False, help="Compare what servers were asked, from their log, not the table."
    )
    publish = Parameter("publish", type=bool, default=True, help="Whether drift publishes the event.")

    @step
    def start(self):
        """Pin what is compared."""
        from dlpipe.flows.pinning import pin_monitored

        self.monitoring = self.read_settings().monitoring
        self.params = self.describe_settings()
        self.subject_used = pin_monitored(self.model, self.table, self.target, served=self.served)
        self.monitored_by, self.monitored_rows = self.subject_used.model, self.subject_used.source
        scored = self.subject_used.predictions
        print(f"{scored}, rows of {self.monitored_rows}, against {self.subject_used.trained_on}")
        self.next(self.compare)

    @card(type="blank")
    @step
    def compare(self):
        """Compare, and keep the numbers."""
        import time

        from dlpipe.flows.cards import show_drift
        from dlpipe.monitoring import make_predict, monitor, read_current
        from dlpipe.serving.incoming import read_served

        found = monitor(
            self.subject_used,
            predict=make_predict(self.monitored_by),
            settings=self.monitoring,
            now=time.time(),
            read=read_served if self.served else read_current,
        )
        show_drift(found, publishes=self.publish)
        self.drift_table, self.reason, self.drifted = found.table, found.drift.reason, found.drift.drifted
        self.signals, self.quality, self.outcome = found.drift.signals, found.quality, found.drift.outcome
        self.event, self.event_id, self.publishing = found.payload(), found.event_id, found.publish
        self.new_look = found.new
        for signal in found.drift.signals:
            setattr(self, f"drift_{signal.name}", signal.size)
        if found.quality.rows:
            setattr(self, f"live_{found.quality.metric}", found.quality.value)
        self.next(self.end)

    @step
    def end(self):
        """Publish the event, and say what was found."""
        import time

        from dlpipe.flows import publish
        from dlpipe.flows.cards import describe_quality

        told = "none"
        if self.publishing and self.publish:
            told = publish(EVENT, self.event, event_id=self.event_id, new=self.new_look, at=time.time())
        elif self.drifted:
            told = "none: not asked for" if not self.publish else "none: the last one for this model is recent"
        self.summary = print_summary(
            outcome=self.outcome,
            data=f"{self.monitored_rows}, the last {self.event['rows']:,} new rows",
            model=f"{self.monitored_by.uri}, trained on {self.subject_used.trained_on}",
            quality=describe_quality(self.quality),
            event=told,
            numbers=self.drift_table,
            card=f"python flows/monitor_flow.py card view {current.run_id}/compare",
        )

    def check_inputs(self):
        """See that model and tables are there and fit each other; called before a run begins."""
        from dlpipe.flows.pinning import CLASSIFIER, PIPELINE, check_kind, find_trigger_run, pin_monitored
        from dlpipe.monitoring import check_scored

        if self.served or not find_trigger_run():
            subject = pin_monitored(self.model, self.table, self.target, served=self.served)
            check_kind(subject.model, CLASSIFIER, PIPELINE)
            if not self.served:
                check_scored(subject)


if __name__ == "__main__":
    MonitorFlow()
