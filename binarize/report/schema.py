"""The JSON schema of a report. Run as a program, it prints what `schema.json` beside it has to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from binarize.report.report import Report

__all__ = ["SCHEMA_FILE", "report_schema"]

# The published form; a test holds it equal to `report_schema()`.
SCHEMA_FILE = Path(__file__).with_name("schema.json")


def report_schema() -> dict[str, Any]:
    """The schema as the types say it: every field required, none unknown, no NaN."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Report).json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    for part in (schema, *schema["$defs"].values()):
        part["additionalProperties"] = False
        part["required"] = sorted(part["properties"])
        for value in part["properties"].values():
            value.pop("default", None)
            value.pop("title", None)
    return schema


if __name__ == "__main__":
    print(json.dumps(report_schema(), indent=2, sort_keys=True))
