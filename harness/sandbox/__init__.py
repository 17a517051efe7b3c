"""Runs untrusted programs: no network, no files of the user, no secrets, hard limits, and nothing left afterwards."""

from harness.sandbox.program import Limits, Outcome, Program
from harness.sandbox.sandbox import ALLOW_UNSANDBOXED, Sandbox, SandboxError

__all__ = ["ALLOW_UNSANDBOXED", "Limits", "Outcome", "Program", "Sandbox", "SandboxError"]
