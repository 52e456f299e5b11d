"""The log as evidence: proofs that leave the platform, and the check that nothing in a log was altered."""

from headrace.evidence.keeping import Kept, read_kept
from headrace.evidence.proving import prove
from headrace.evidence.scan import LogScan, Problem
from headrace.evidence.verifying import Verdict, verify_log

__all__ = ["Kept", "LogScan", "Problem", "Verdict", "prove", "read_kept", "verify_log"]
