"""docs/mlflow.md lists the endpoints there are."""

import re
from pathlib import Path

from headrace_gateway.mlflow_api import endpoints

PAGE = Path(__file__).resolve().parents[3] / "docs" / "mlflow.md"


def test_the_page_lists_every_endpoint_and_no_other() -> None:
    listed = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^` ]+)`", PAGE.read_text())
    assert sorted(listed) == sorted((each.method, each.path) for each in endpoints())
