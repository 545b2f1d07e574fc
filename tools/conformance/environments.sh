#!/usr/bin/env bash
# Builds the Python environments beside this file, .venv-v5 and .venv-v4, or only the one named. Quick when they are
# up to date.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "Python 3.10 or newer is needed; found: $("$python" --version). Set PYTHON to one." >&2
  exit 1
}

# pip's output goes to a log that is shown only if it fails.
quietly() {
  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ $# -gt 0 ] || set -- v5 v4
for major in "$@"; do
  environment=.venv-$major requirements=requirements-$major.txt
  cmp -s "$requirements" "$environment/built-from.txt" && continue
  torch=$(grep '^torch==' "$requirements")
  echo "conformance: building $environment (torch first, some minutes) ..."
  rm -rf "$environment"
  quietly "$python" -m venv "$environment"
  quietly "$environment/bin/pip" install --disable-pip-version-check "$torch"
  quietly "$environment/bin/pip" install --disable-pip-version-check -r "$requirements"
  cp "$requirements" "$environment/built-from.txt" # last: its presence says that the environment is complete
done
