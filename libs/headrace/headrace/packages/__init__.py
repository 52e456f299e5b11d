"""Packages of versions: their files and signatures, fetched and verified.

An example::

    from headrace.packages.remote import download

    with headrace.connect() as client:
        download(client, "projects/default/models/delays@production", Path("model.onnx"))

Signatures need the extra ``headrace[verify]`` (cryptography).
"""
