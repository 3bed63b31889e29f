"""The production orchestrator for one machine: deployments, due times, triggers and supervision of Metaflow runs.

==============  ==========================================================================================
deployments     what is deployed: frozen code, parameters, schedule, triggers and policies (dataclasses)
runs            what ran or is to run: runs, their attempts, events (dataclasses)
timing          due times of a schedule, with time zones and daylight-saving changes
fields          cron lines read field by field, with errors that say what is wrong
state           all of it in one SQLite file
kept_*          the state's deployments, runs and events
database, rows  the SQLite file itself, and its tables
decisions       what is to be done now, from the state and the clock (pure)
matching        whether an event starts a run, and which parameters it gives
values          which values a parameter takes, and as which words of a command
events          publishing an event
limits          how long a run and its attempts may take
processes       an attempt's processes: started once, found again, ended with all that they started
keeper          the small process beside each attempt that notes how it ended
supervision     runs carried from attempt to attempt: begun, examined, resumed, ended for good
starting        whether the next attempt may begin, and its beginning
attempts        what an attempt is started with: command, environment, the run that it resumes
examinations    looking for the end of attempts in threads, beside the scheduler's loop
findings        how an attempt ended, and whether the next one may do better
inspection      what Metaflow knows of a run, asked with the deployment's own interpreter
ends            what the end of an attempt makes of its run: reason, wait, event
interventions   what a person does to one run: stop, suspend, unsuspend
scheduler       the loop that puts these together
stop_signal     how the loop's sleep is ended
watching        changes of the state's folder, as the kernel reports them
daemon          the scheduler's process, with its log and its page
presence        which process is the scheduler of a state, and how it is stopped
retention       what ended long ago is forgotten
logfile         the log of the scheduler
freezing        a deployment's code, kept where editing the working tree does not reach it
environment     the Python packages that a deployment was made with
exit_hooks      the functions of a flow that are called when its run has ended for good
hook_calls      the process that calls them
overview        deployments and runs as people see them
inbox           events and incomplete sets of them as people see them
attempt_files   log, cards and MLflow address of an attempt
alerts          a command or a webhook when a run fails or recovers
page            the status page on loopback
page_server     its server, which silent connections do not stop
page_token      who may read it
service         the systemd unit that keeps the scheduler going
==============  ==========================================================================================
"""
