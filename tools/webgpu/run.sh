#!/usr/bin/env bash
# One command: the tests of packages/webgpu and of models on it, in Node (Dawn), and the suite once more in Chromium. The GPU is SwiftShader, a
# Vulkan driver that computes on the CPU and comes with Debian's chromium, which is installed when it is not there. A test that Node
# skips counts as failed: there is an adapter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
driver=/usr/lib/chromium/vk_swiftshader_icd.json

skip() {
  echo "skipped: $1"
  echo 'webgpu: 0 passed, 0 failed'
  exit 0
}

if [ ! -e "$driver" ]; then
  command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] || skip "there is no $driver, and no apt-get that could install it"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
fi
node "$root/tools/bootstrap.mjs"

report=$(mktemp) log=$(mktemp)
trap 'rm -f "$report" "$log"' EXIT
cd "$root"
status=0
VK_ICD_FILENAMES=$driver VK_DRIVER_FILES=$driver node node_modules/vitest/vitest.mjs run --config=tools/vitest.config.ts \
  --reporter=verbose --reporter=json --outputFile.json="$report" packages/webgpu packages/model/test/webgpu.test.ts || status=$?
npx tsx tools/webgpu/main.ts | tee "$log" || status=$?
node - "$report" "$log" <<'JS'
const { readFileSync } = require('fs')
const read = (path) => readFileSync(path, 'utf8')
const dawn = JSON.parse(read(process.argv[2]) || '{}')
const chromium = read(process.argv[3]).match(/^chromium: (\d+) passed, (\d+) failed/m) ?? [0, 0, 1]
const passed = (dawn.numPassedTests ?? 0) + Number(chromium[1])
const failed = (dawn.numFailedTests ?? 1) + (dawn.numPendingTests ?? 0) + Number(chromium[2])
console.log(`webgpu: ${passed} passed, ${failed} failed`)
JS
exit "$status"
