"""Metaflow's production orchestrator for one machine: ``python FLOW.py local-scheduler ...``.

===================  ====================================================================
cli                  the commands
reading              schedule, triggers, parameters and options, as the flow says
creating             a flow becomes a version of a deployment
comparing            what the working tree has that the newest version has not
authority            names, production tokens and who may use them
launching            a run with a run id that is given; the scheduler's command
decorator            fills ``current.trigger`` and ``Run.trigger``
deployer             ``Deployer("flow.py").local_scheduler()``
deployer_objects     what ``create`` and ``trigger`` of the Deployer return
===================  ====================================================================

The rooms of dlpipe are imported in the functions that need them: Metaflow loads this for every flow.
"""
