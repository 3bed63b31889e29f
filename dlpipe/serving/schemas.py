"""The shapes of bodies and answers, as JSON Schema: the parts of the OpenAPI document of a server."""

from __future__ import annotations

from typing import Any

from dlpipe.serving.bodies import DATATYPES

Json = dict[str, Any]
VALUE: Json = {"type": ["string", "number", "boolean", "null"]}
COLUMN: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Value"}}
RECORD: Json = {
    "type": "object",
    "additionalProperties": {"$ref": "#/components/schemas/Value"},
    "minProperties": 1,
}
COLUMNS: Json = {
    "type": "object",
    "additionalProperties": {"$ref": "#/components/schemas/Column"},
    "minProperties": 1,
}
RECORDS: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Record"}, "minItems": 1}
VALUES: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Value"}, "minItems": 1}
ROWS: Json = {
    "description": "A text, a row as an object, columns as an object of lists, or a list of texts or of rows.",
    "anyOf": [
        {"type": "string"},
        {"$ref": "#/components/schemas/Record"},
        {"$ref": "#/components/schemas/Columns"},
        {"$ref": "#/components/schemas/Records"},
        VALUES,
    ],
}
SPLIT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "columns": {"type": "array", "items": {"type": "string"}},
        "index": {"type": "array"},
        "data": {"type": "array", "items": {"type": "array"}},
    },
}
INVOCATIONS: Json = {
    "description": "One of the four forms of MLflow's scoring server; other keys are not read.",
    "oneOf": [
        {"type": "object", "required": [name], "properties": {name: form}}
        for name, form in {
            "dataframe_split": SPLIT,
            "dataframe_records": {"$ref": "#/components/schemas/Records"},
            "instances": {"$ref": "#/components/schemas/Rows"},
            "inputs": {"$ref": "#/components/schemas/Rows"},
        }.items()
    ],
}
TENSOR: Json = {
    "description": "A column, of the shape [rows] or [rows, 1].",
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 2},
        "datatype": {"type": "string", "enum": sorted(DATATYPES)},
        "data": {"type": "array", "minItems": 1},
        "parameters": {"type": "object"},
    },
}
TENSORS_TOLD: Json = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string", "enum": sorted(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
        },
    },
}
INFER: Json = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}, "minItems": 1},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
        "parameters": {"type": "object"},
    },
}
LABEL: Json = {
    "type": "object",
    "required": ["request_id", "label"],
    "properties": {
        "request_id": {"type": "string", "format": "uuid"},
        "label": {
            "type": ["string", "number", "array"],
            "pattern": r"\S",
            "items": {"type": "string"},
            "description": "A class, a number, or several labels; those that the model knows.",
        },
        "row": {"type": ["integer", "null"], "minimum": 0, "description": "Of the request, from 0; by default 0."},
    },
}
ANSWERING: Json = {
    "model": {"type": "string"},
    "version": {"type": "integer"},
    "digest": {"type": "string", "description": "SHA-256 of the weights and of what decides beside them."},
    "engine": {"type": "string"},
}
ABOUT: Json = {
    "request_id": {"type": "string", "format": "uuid"},
    **ANSWERING,
    "duration_ms": {"type": "number"},
}
ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "request_id")},
        }
    },
}
V2_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {name: {"type": "string"} for name in ("error", "code", "request_id")},
}
SCHEMAS: Json = {
    "Value": VALUE,
    "Column": COLUMN,
    "Record": RECORD,
    "Records": RECORDS,
    "Columns": COLUMNS,
    "Rows": ROWS,
    "Invocations": INVOCATIONS,
    "Tensor": TENSOR,
    "InferRequest": INFER,
    "Predictions": {
        "type": "object",
        "required": ["predictions", *ABOUT],
        "properties": {"predictions": {"type": "array", "items": {"type": "object"}}, **ABOUT},
    },
    "MlflowPredictions": {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": {"type": "object"}}},
    },
    "Explanations": {
        "type": "object",
        "required": ["explanations", *ABOUT],
        "properties": {"explanations": {"type": "array", "items": {"type": "object"}}, **ABOUT},
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object", "properties": ABOUT},
            "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
        },
    },
    "Label": LABEL,
    "Labels": {
        "anyOf": [{"$ref": "#/components/schemas/Label"}, {"type": "array", "items": LABEL, "minItems": 1}]
    },
    "Accepted": {
        "type": "object",
        "required": ["accepted", "request_id", "model"],
        "properties": {
            "accepted": {"type": "integer"},
            "request_id": {"type": "string", "format": "uuid"},
            "model": {"type": "string"},
        },
    },
    "Models": {
        "type": "object",
        "required": ["models"],
        "properties": {
            "models": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "aliases", "loaded"],
                    "properties": {
                        "name": {"type": "string"},
                        "aliases": {"type": "object", "additionalProperties": {"type": "integer"}},
                        "loaded": {"type": "object", "additionalProperties": {"type": "object"}},
                    },
                },
            },
            "registry_unseen": {"type": "string", "description": "Why the registry could not be asked."},
        },
    },
    "Model": {
        "type": "object",
        "required": [*ANSWERING, "task", "pipeline", "single_text", "checked", "inputs", "outputs"],
        "properties": {
            **ANSWERING,
            "task": {"type": "string"},
            "pipeline": {"type": "boolean", "description": "Whether it answers rows that cannot be read."},
            "single_text": {"type": "boolean", "description": "Whether a row is a text."},
            "checked": {"type": "boolean", "description": "Whether it has answered the example of its version."},
            "inputs": TENSORS_TOLD,
            "outputs": TENSORS_TOLD,
        },
    },
    "Ready": {
        "type": "object",
        "required": ["ready"],
        "properties": {
            "ready": {"type": "boolean"},
            "not_ready": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Models of --model that do not answer yet, and why.",
            },
        },
    },
    "Live": {"type": "object", "required": ["live"], "properties": {"live": {"const": True}}},
    "Document": {"type": "object", "required": ["openapi", "info", "paths"]},
    "ServerMetadata": {
        "type": "object",
        "required": ["name", "version", "extensions"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "extensions": {"type": "array", "items": {"type": "string"}},
        },
    },
    "ModelMetadata": {
        "type": "object",
        "required": ["name", "versions", "platform", "inputs", "outputs"],
        "properties": {
            "name": {"type": "string"},
            "versions": {"type": "array", "items": {"type": "string"}},
            "platform": {"type": "string"},
            "inputs": TENSORS_TOLD,
            "outputs": TENSORS_TOLD,
        },
    },
    "ModelReady": {
        "type": "object",
        "required": ["name", "ready"],
        "properties": {"name": {"type": "string"}, "ready": {"type": "boolean"}},
    },
    "Error": ERROR,
    "V2Error": V2_ERROR,
}
