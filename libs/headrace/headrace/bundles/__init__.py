"""Runs and models with their lineage, as one file: out of one platform, and into another."""

from headrace.bundles.container import BundleDamaged, Member
from headrace.bundles.reading import import_bundle
from headrace.bundles.writing import Exported, export_models, export_runs

__all__ = ["BundleDamaged", "Exported", "Member", "export_models", "export_runs", "import_bundle"]
