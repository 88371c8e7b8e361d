"""Checks proto/openapi.json against the schemas of OpenAPI 3.1 (PyPI openapi-spec-validator).

Then it breaks the document in known ways and fails if a breakage goes unnoticed. Exit 0: all is well; 1: mistakes.
"""

import copy
import json
import pathlib
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "proto" / "openapi.json"


def mistakes(document):
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        yield f"{'/'.join(map(str, error.path))}: {error.message[:300]}"


def breakages(document):
    tasks = document["paths"]["/api/v1/tasks"]["get"]
    yield "a field that OpenAPI does not know", lambda broken: broken["paths"]["/api/v1/tasks"]["get"].update(answers={})
    yield "a parameter without a place", lambda broken: broken["paths"]["/api/v1/tasks"]["get"]["parameters"][0].pop("in")
    yield "two operations of one name", lambda broken: broken["paths"]["/livez"]["get"].update(operationId=tasks["operationId"])
    yield "a path whose parameter is not told", lambda broken: broken["paths"]["/api/v1/tasks/{task_id}"]["get"]["parameters"].pop(0)
    yield "a type that does not exist", lambda broken: broken["components"]["schemas"]["Moment"].update(type="moment")


def main():
    document = json.loads(DOCUMENT.read_text())
    found = list(mistakes(document))
    for what, break_it in breakages(document):
        broken = copy.deepcopy(document)
        break_it(broken)
        if not any(mistakes(broken)):
            found.append(f"nobody noticed {what}")
    for mistake in found:
        print(f"openapi.json: {mistake}")
    if not found:
        print(f"openapi.json: {len(document['paths'])} paths, all as OpenAPI {document['openapi']} has it")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
