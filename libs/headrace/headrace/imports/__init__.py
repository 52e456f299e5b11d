"""What others recorded, brought into headrace: from an MLflow server, from a table of runs.

Every import can be repeated: it adds what is new, changes nothing that is there, and says what it left out and why.
"""

from headrace.imports.csvfile import import_csv
from headrace.imports.mlflow import import_mlflow
from headrace.imports.report import LeftOut, Progress, Report
from headrace.imports.server import MlflowServer, ServerError

__all__ = ["LeftOut", "MlflowServer", "Progress", "Report", "ServerError", "import_csv", "import_mlflow"]
