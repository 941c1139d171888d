#!/usr/bin/env bash
# Pretrains a small FetalCLIP on the built-in phantom and judges it. Five to ten minutes on two
# cores. Killed? Run it again: it goes on from the last checkpoint.
#   bash launch/quickstart.sh [workdir]        (default: runs/quickstart)
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "$0")/environment.sh"
prepare_environment ""

workdir="${1:-runs/quickstart}"
# Of a run that was interrupted, the report adds up what its programs took.
fresh=1
[ -e "$workdir/config.json" ] && fresh=
SECONDS=0
fetalclip train --config configs/phantom_quickstart.py --workdir "$workdir"
fetalclip evaluate --config configs/eval/quickstart.py --model "$workdir" \
  --output "$workdir/results"
fetalclip report "$workdir" ${fresh:+--total-seconds "$SECONDS"}
