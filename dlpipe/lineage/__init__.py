"""What came of what: from an answer to the line of the file that taught it, and from a row to all that it reached.

Nothing is stored for it: Delta's commits and rows, the registry, Metaflow's records and the scheduler's state are
read when they are asked. Which of them to read, an index says, which is a cache.

nodes            what lineage is of, and how it is written
graph            edges, and the graph that they make
walk             up and down from a node
records          all readers together, as things were at a moment
near_misses      what there is instead of a node that does not exist
reader           what a reader answers; each knows the neighbours of some nodes:
tables           versions of tables and files, by the commits of
catalog          the tables, each read once
rows             rows, the lines that they stood on, the models that learnt from them
index            which records a word stands in
indexed_tables   which commits name a thing, which row groups have a row
indexed_files    which line a row stood on
indexed_models   which versions of models have a tag
indexed_runs     which runs resumed a run or ran some code
indexed_uses     which runs had a version of a table or a model
row_origins      which row a row id means in a version
answers          predictions, explanations, looks at drift
models           versions of models and the moves of champions
moves            what there is to say of moves and deleted versions
runs             runs and tasks of Metaflow
tasks            how these are named as nodes
trials           trials of a search for settings
checkpoints      checkpoints that tasks saved
uses             what runs had in their hands and did not make
schedules        deployments and events
requests         requests and the labels for them
asked_rows       rows that a table got from these
tree             a graph as lines for people
formats          a graph for programs: JSON, DOT, GraphML
layers           where nodes stand on a page
page             a graph as a page
version_uses     what versions of models were used for, for their pages in MLflow
checking         whether records agree
agreement        whether MLflow alone has the graph that Metaflow and Delta alone have
"""

from dlpipe.lineage.checking import Finding, check_records, count_problems
from dlpipe.lineage.formats import to_dot, to_graphml, to_plain
from dlpipe.lineage.graph import Edge, Facts, Graph
from dlpipe.lineage.models import parse_model_node
from dlpipe.lineage.nodes import KINDS, OF_TABLES, Node
from dlpipe.lineage.page import make_page
from dlpipe.lineage.records import Records
from dlpipe.lineage.tasks import make_run_node
from dlpipe.lineage.tree import format_tree
from dlpipe.lineage.version_uses import find_uses, renew_pages
from dlpipe.lineage.walk import walk

__all__ = [
    "KINDS",
    "OF_TABLES",
    "Edge",
    "Facts",
    "Finding",
    "Graph",
    "Node",
    "Records",
    "check_records",
    "count_problems",
    "find_uses",
    "format_tree",
    "make_page",
    "make_run_node",
    "parse_model_node",
    "renew_pages",
    "to_dot",
    "to_graphml",
    "to_plain",
    "walk",
]
