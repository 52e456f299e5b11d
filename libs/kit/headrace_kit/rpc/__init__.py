"""gRPC as every service speaks it. grpc is known here and in the servicers."""

from headrace_kit.auth import Principal, Tokens, current_principal, require_role
from headrace_kit.rpc.call import causal_metadata, causing, command_context, outgoing_metadata, parse_uuid
from headrace_kit.rpc.client import channel
from headrace_kit.rpc.peers import from_peer, peer_errors
from headrace_kit.rpc.server import Server, Servicer
from headrace_kit.rpc.status import as_kit_error, rich_status, status_code

__all__ = [
    "Principal",
    "Server",
    "Servicer",
    "Tokens",
    "as_kit_error",
    "causal_metadata",
    "causing",
    "channel",
    "command_context",
    "current_principal",
    "from_peer",
    "outgoing_metadata",
    "parse_uuid",
    "peer_errors",
    "require_role",
    "rich_status",
    "status_code",
]
