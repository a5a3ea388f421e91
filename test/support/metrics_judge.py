"""Reads metrics on standard input as Prometheus' own library does; prints its families as JSON.

Argument: the content type that came with them. Exits with 1 and a complaint where a parser refuses them.
"""

import json
import sys

from prometheus_client import parser as text
from prometheus_client.openmetrics import parser as openmetrics

is_open = sys.argv[1].startswith("application/openmetrics-text")
families = (openmetrics if is_open else text).text_string_to_metric_families(sys.stdin.read())
result = {}
for family in families:
    samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
    result[family.name] = {"type": family.type, "help": family.documentation, "samples": samples}
json.dump(result, sys.stdout)
