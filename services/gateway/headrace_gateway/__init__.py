"""The gateway: the HTTP edge. Web console, and the REST API of MLflow's clients.

Owns: console sessions (in signed cookies), nothing else.
Consumes: every service's log, live, over gRPC.
Emits: nothing; what a person does in the console are commands to the services, in that person's name.
Guarantees: no page without a session or token; no change without a CSRF token; no API call without a token.
"""
