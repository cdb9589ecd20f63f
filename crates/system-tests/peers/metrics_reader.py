"""Reads a scrape of /metrics with Prometheus's own parser and prints its families as JSON.

    metrics_reader.py FILE
"""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        families = list(text_string_to_metric_families(file.read()))
    print(
        json.dumps(
            {
                family.name: {
                    "type": family.type,
                    "help": family.documentation,
                    "samples": [sample.value for sample in family.samples],
                }
                for family in families
            }
        )
    )


if __name__ == "__main__":
    main()
