#!/usr/bin/env bash
# Installs the package with its test extra and runs the tests, a process for each core.
#   bash launch/test.sh [pytest arguments]
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
prepare_environment "[test]"
python -m pytest -n auto --dist loadfile "$@"
