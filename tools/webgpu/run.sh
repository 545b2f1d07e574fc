#!/usr/bin/env bash
# One command: the tests of packages/webgpu, and of models on it, on SwiftShader, a Vulkan driver that computes on the CPU and comes with Debian's Chromium
# (installed when it is not there). Here a skipped test counts as failed: there is an adapter.
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

report=$(mktemp)
trap 'rm -f "$report"' EXIT
cd "$root"
export VK_ICD_FILENAMES=$driver VK_DRIVER_FILES=$driver
status=0
node node_modules/vitest/vitest.mjs run --config=tools/vitest.config.ts --reporter=verbose --reporter=json \
  --outputFile.json="$report" packages/webgpu packages/model/src/webgpu.test.ts || status=$?
node - "$report" <<'JS'
const { numPassedTests, numFailedTests, numPendingTests, numTotalTests } = JSON.parse(require('fs').readFileSync(process.argv[2]))
const failed = numFailedTests + numPendingTests + (numTotalTests === 0 ? 1 : 0)
console.log(`webgpu: ${numPassedTests} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
JS
exit "$status"
