"""What the parts of splits share, and splits without it.

Windows and embeddings are compared once for a dataset; parts of all splits are bits that go along.
"""

from probes.audit.findings import AUDIT_COLUMNS, Audit, audit

__all__ = ["AUDIT_COLUMNS", "Audit", "audit"]
