# shellcheck shell=bash
# Sourced by tpu_vm.sh and gke.sh: TPU slices, under the names that `fetalclip plan --topology` has.
# Source: "TPU configurations" and "TPU machine types" in the documentation of Cloud TPU and GKE.

# generation: topologies in chips. Of v5e and v6e a host has 4 chips, but 1x1 and 2x4 are one host.
known_topologies() {
  cat <<'TABLE'
v5e: 1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16
v6e: 1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16
v5p: 2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16
TABLE
}

# Sets generation, shape, chips, hosts, chips_per_host; accelerator_type and runtime for TPU VMs;
# gke_accelerator for GKE.
set_slice() { # TOPOLOGY, such as v5e:4x4
  local row
  generation="${1%%:*}" shape="${1#*:}"
  row="$(known_topologies | grep "^$generation: " || true)"
  if [[ ! "$1" =~ ^[a-z0-9]+:[0-9x]+$ || " ${row#*:} " != *" $shape "* ]]; then
    fail "--topology $1 is not known; there are: $(known_topologies | paste -sd ';' - | sed 's/;/; /g')"
  fi
  chips=$((${shape//x/*}))
  chips_per_host=4
  case "$shape" in 1x1 | 2x4) chips_per_host=$chips ;; esac
  hosts=$((chips / chips_per_host))
  case "$generation" in
    v5e) accelerator_type="v5litepod-$chips" runtime=v2-alpha-tpuv5-lite gke_accelerator=tpu-v5-lite-podslice ;;
    v6e) accelerator_type="v6e-$chips" runtime=v2-alpha-tpuv6e gke_accelerator=tpu-v6e-slice ;;
    # Counted in cores, of which a chip has two.
    v5p) accelerator_type="v5p-$((2 * chips))" runtime=v2-alpha-tpuv5 gke_accelerator=tpu-v5p-slice ;;
  esac
  export generation shape chips hosts chips_per_host accelerator_type runtime gke_accelerator
}

# What several hosts write together, and what outlives them, is not on the disk of one.
check_workdir() { # WORDS of the command
  local option folder
  for option in --workdir --output; do
    folder="$(value_of "$option" "$@")"
    case "$folder" in
      '' | *://* | /*) ;;
      *) fail "$option $folder would be lost with its host; give a bucket, such as gs://BUCKET/$folder, or the whole path of a disk that all hosts share" ;;
    esac
  done
}
