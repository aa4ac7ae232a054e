"""Renders a chart with Helm and holds what comes out against the schemas of Kubernetes.

Reads {"chart": folder, "cases": [values, …]} as JSON from standard input, and prints a list as JSON with an object for
each case: {"objects": […], "findings": ["…"], "unknown": ["apiVersion kind", …]}, or {"error": "…"} if Helm refuses
the values. The schemas are strict: a field that Kubernetes does not know is a finding.
"""

import functools
import glob
import json
import os
import re
import sys

import jsonschema_rs
from helm_python.chart import Chart, lint, values_from_yaml
from helm_python.errors import HelmError

# The oldest version that the chart is for, and the newest that there are schemas of.
VERSIONS = ("v1.30.0", "v1.37.0")
SCHEMAS = glob.glob(os.path.join(sys.prefix, "lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema"))[0]
# Of Helm's own findings what is worse than "an icon is recommended".
WARNING = 2


@functools.cache
def definitions(version):
    with open(f"{SCHEMAS}/{version}-local-strict/_definitions.json", encoding="utf-8") as file:
        return json.load(file)


@functools.cache
def validator(version, api_version, kind):
    group, _, number = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], number) if part)
    path = f"{SCHEMAS}/{version}-local-strict/{name}.json"
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    return jsonschema_rs.Draft7Validator(
        schema, base_uri="json-schema:///root.json", retriever=lambda uri: definitions(version)
    )


def documents(text):
    for document in re.split(r"^---\s*$", text, flags=re.MULTILINE):
        value = values_from_yaml(document)
        if value:
            yield value


def check(folder, chart, values):
    try:
        chart.validate_schema(values)
        rendered = chart.render(values, name="demo", namespace="keymeter")
    except HelmError as error:
        return {"error": str(error)}
    messages = lint(folder, values, namespace="keymeter")["messages"]
    findings = [message["error"] for message in messages if message["severity"] >= WARNING]
    objects, unknown = [], []
    for path, text in rendered.items():
        if not path.endswith(".yaml"):
            continue
        for value in documents(text):
            objects.append(value)
            named = f"{value['apiVersion']} {value['kind']}"
            for version in VERSIONS:
                holds = validator(version, value["apiVersion"], value["kind"])
                if holds is None:
                    unknown.append(named)
                    continue
                for error in holds.iter_errors(value):
                    where = "/".join(map(str, error.instance_path))
                    findings.append(f"{version} {named} {value['metadata']['name']} {where}: {error.message}")
    return {"objects": objects, "findings": findings, "unknown": sorted(set(unknown))}


asked = json.load(sys.stdin)
with Chart.load(asked["chart"]) as chart:
    print(json.dumps([check(asked["chart"], chart, values) for values in asked["cases"]]))
