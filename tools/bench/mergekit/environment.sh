#!/usr/bin/env bash
# Builds the Python environment beside this file, .venv, in which mergekit is run. Quick when it is up to date.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "Python 3.10 or newer is needed; found: $("$python" --version). Set PYTHON to one." >&2
  exit 1
}
cmp -s requirements.txt .venv/built-from.txt && exit

# pip's output goes to a log that is shown only if it fails.
log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

echo "bench: building mergekit's environment (torch first, some minutes) ..." >&2
rm -rf .venv
quietly "$python" -m venv .venv
quietly .venv/bin/pip install --disable-pip-version-check "$(grep '^torch==' requirements.txt)"
quietly .venv/bin/pip install --disable-pip-version-check -r requirements.txt
cp requirements.txt .venv/built-from.txt # last: its presence says that the environment is complete
