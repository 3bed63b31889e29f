"""Registered models behind an address: what other people's programs ask.

served       one version, loaded and ready
batching     rows of requests that wait, computed together
following    which version a name and an alias mean now: polled, loaded beside the old one, checked, swapped
numbered     versions that were asked for by their number
followed     what is known of an alias that is followed
unservable   versions that can never answer
bodies       request bodies -> rows
replies      records -> bodies of the same shape
tensors      the columns of a version as the Open Inference Protocol has them
refusals     why a request has no answer, as HTTP has it
routes       which address means what
arrivals     requests as they arrive: headers, bodies, how many rows
application  a request from its arrival to its answer
explaining   explanations, one at a time beside predictions
guards       who may do what: the place for keys
pages        what a server says of itself
service      the systemd unit that keeps a server going
status_page  the first page: models, traffic, errors, swaps
recent       what was asked in the last minutes
openapi      the description of its addresses
metrics      numbers for Prometheus
connections  what uvicorn leaves to a proxy: slow, endless, too many, gone
server       the process: socket, event loop, signals
client       asks a server
deployments  MLflow's deployments: aliases at a server
entries      what is known of a request when its answer is ready
journal      files of lines that survive the kill of whoever wrote them
request_log  requests and labels: in a journal at once, in Delta tables seconds later, once each
log_rows     lines of the log -> rows of its tables
logged       the rows as they are now, those in journals included
usage        sums over them
counting     which label of a row counts
labelling    labels as a server takes them
feedback     labels for what was asked, and from there to a table for training
asked        rows of the log -> rows of a table
incoming     rows of the log as monitoring compares them
keys         who asks, how often and how much
key_file     keys as a file has them: hashes, models and rights
settings     the section ``[serving]``
"""
