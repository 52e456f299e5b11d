"""The child that holds a pickle: ``python -I -m headrace_serving.pickle_child``, spoken to over its pipes.

It closes the sandbox around itself before it unpickles. The first frame is the package, the answer says whether it is
loaded; then each message with inputs is answered by one with outputs.
"""

import io
import os
from typing import IO

import joblib
import numpy as np
import sklearn  # the sandbox lets no package outside of Python's own folders in, so import before

from headrace_serving import framing, sandbox
from headrace_serving.estimator import predict


def main() -> None:
    """Serves one model until the pipe closes."""
    stdin: IO[bytes] = os.fdopen(os.dup(0), "rb")
    stdout: IO[bytes] = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the model prints does not reach the protocol
    package = framing.read_frame(stdin)
    held = sandbox.enter()
    try:
        model = joblib.load(io.BytesIO(package))
        if not callable(getattr(model, "predict", None)):
            raise TypeError(f"it holds a {type(model).__name__}, which can not predict")
    except Exception as error:  # noqa: BLE001 - a pickle may raise anything
        framing.write_message(stdout, {"error": _told(error), "sandbox": held}, {})
        return
    framing.write_message(stdout, {"error": "", "sandbox": held, "sklearn": sklearn.__version__}, {})
    while True:
        try:
            document, inputs = framing.read_message(stdin)
        except EOFError:
            return
        try:
            computed = predict(model, list(inputs.values()), document["outputs"])
            plain = {
                name: np.asarray(each, dtype="U") if each.dtype.kind == "O" else each for name, each in computed.items()
            }
            framing.write_message(stdout, {"error": ""}, plain)
        except Exception as error:  # noqa: BLE001 - as above
            framing.write_message(stdout, {"error": _told(error)}, {})


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


if __name__ == "__main__":
    main()
