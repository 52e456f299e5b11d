"""gRPC as every service speaks it. grpc is known here and in the servicers."""

from headrace_kit.auth import Principal, Tokens, current_principal, require_role
from headrace_kit.rpc.call import causal_metadata, command_context, parse_uuid
from headrace_kit.rpc.client import channel
from headrace_kit.rpc.server import Server, Servicer
from headrace_kit.rpc.status import rich_status, status_code

__all__ = [
    "Principal",
    "Server",
    "Servicer",
    "Tokens",
    "causal_metadata",
    "channel",
    "command_context",
    "current_principal",
    "parse_uuid",
    "require_role",
    "rich_status",
    "status_code",
]
