# shellcheck shell=bash
# Sourced by the scripts beside it: makes the virtual environment and puts it first on PATH.
#   PYTHON=python3.13         interpreter to use (3.11 to 3.13; default: python3)
#   FETALCLIP_VENV=.venv      where the environment lies

# Buffers in huge pages: a training step on a CPU faults in hundreds of times fewer.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

prepare_environment() {
  local extras="$1" python="${PYTHON:-python3}" venv="${FETALCLIP_VENV:-.venv}"
  if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
    echo "error: $python is not Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python3.x" >&2
    exit 1
  fi
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || exit 1
  echo "Installing into $venv (a minute or two the first time)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".$extras" || exit 1
  PATH="$(cd "$venv/bin" && pwd):$PATH"
  export PATH
}
