"""The rules of ``p3d-regression check``: one file per family. A rule is a code, a name, a reason, a fix, an example."""
