#!/bin/sh
# Writes the golden files of packages/tensor-io with the reference implementation, in a Python environment of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv="$here/.venv"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
exec "$venv/bin/python" "$here/safetensors_golden.py" "$here/../../packages/tensor-io/test/golden"
