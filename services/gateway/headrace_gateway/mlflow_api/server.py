"""What clients ask about the server itself."""

from typing import Final

from starlette.responses import PlainTextResponse, Response

from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.table import V3, Endpoint
from headrace_gateway.mlflow_api.wire import Json

VERSION: Final = "3.17.2"
"""The release of MLflow whose API this is."""


def endpoints() -> list[Endpoint]:
    """Health, version, features."""
    return [
        Endpoint("GET", "/health", _health),
        Endpoint("GET", "/version", _version),
        Endpoint("GET", f"{V3}/server-info", _info),
    ]


async def _health(_ask: Ask) -> Response:
    return PlainTextResponse("OK")


async def _version(_ask: Ask) -> Response:
    return PlainTextResponse(VERSION)


async def _info(_ask: Ask) -> Json:
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": False,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": True,
        "multipart_downloads_enabled": True,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
        "features_enabled": [],
    }
