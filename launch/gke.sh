#!/usr/bin/env bash
# Runs a fetalclip command on a TPU slice of a GKE cluster, as the JobSet of launch/gke.yaml. What
# is preempted comes back by itself, and goes on from its checkpoint.
#   bash launch/gke.sh --name NAME --topology v5e:4x4 --image IMAGE [options] -- \
#       fetalclip train --config FILE --workdir gs://BUCKET/RUN
#
#   --name NAME             of the JobSet
#   --topology TOPOLOGY     a slice, by the names of `fetalclip plan`, such as v5e:4x4
#   --image IMAGE           a container image with fetalclip in it (launch/Dockerfile)
#   --namespace NAMESPACE   (default: that of kubectl's context)
#   --service-account NAME  of Kubernetes, which may read and write the bucket (default: default)
#   --spot                  on spot nodes
#   --save-seconds N        between the notice and the end of a pod, to save in (default: 300)
#   --restarts N            how often a command that failed is started again (default: 5);
#                           preemptions are no failures
#   --dry-run               prints what would be run, for a shell, and runs nothing
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=launch/options.sh
source "$here/options.sh"
# shellcheck source=launch/topologies.sh
source "$here/topologies.sh"

name='' topology='' image='' namespace='' service_account=default spot='' save_seconds=300
restarts=5 dry_run=''
parse "name topology image namespace service-account save-seconds restarts" "spot dry-run" "$@"

check() {
  local label='^[a-z]([a-z0-9-]*[a-z0-9])?$'
  [ -n "$name" ] || fail "--name is missing"
  [ -n "$topology" ] || fail "--topology is missing, such as v5e:4x4"
  [ -n "$image" ] || fail "--image is missing: build one of launch/Dockerfile"
  # The names of pods, which begin with it, have at most 63 letters.
  [[ "$name" =~ $label && ${#name} -le 40 ]] ||
    fail "--name $name: use at most 40 lower-case letters, digits and '-', and begin with a letter"
  [[ "$image" =~ ^[A-Za-z0-9._:/@-]+$ ]] || fail "--image $image is no name of an image"
  [[ "$service_account" =~ ^[a-z0-9.-]+$ ]] || fail "--service-account $service_account is no name"
  [[ -z "$namespace" || "$namespace" =~ $label ]] || fail "--namespace $namespace is no name"
  whole_number --save-seconds "$save_seconds" 1
  whole_number --restarts "$restarts" 0
  check_workdir "${command[@]}"
  set_slice "$topology"
}

# As a list of YAML, which strings of JSON are part of. In a command Kubernetes replaces $(NAME).
listed() { # WORDS
  local word list=
  for word in "$@"; do
    [[ "$word" != *[[:cntrl:]]* ]] || fail "the command has a line break or control character"
    word="${word//\\/\\\\}" word="${word//\"/\\\"}" word="${word//\$(/\$\$(}"
    list+="${list:+, }\"$word\""
  done
  echo "[$list]"
}

manifest() {
  local line marked=()
  [ "$hosts" -gt 1 ] || marked+=('# several hosts')
  [ -n "$spot" ] || marked+=('# spot')
  while IFS= read -r line; do
    for mark in ${marked[@]+"${marked[@]}"}; do
      [[ "$line" != *" $mark" ]] || continue 2
    done
    [[ "$line" != \#* ]] || continue
    line="${line//\$\{NAME\}/$name}"
    line="${line//\$\{RESTARTS\}/$restarts}" line="${line//\$\{HOSTS\}/$hosts}"
    line="${line//\$\{SAVE_SECONDS\}/$save_seconds}" line="${line//\$\{SHAPE\}/$shape}"
    line="${line//\$\{SERVICE_ACCOUNT\}/$service_account}"
    line="${line//\$\{ACCELERATOR\}/$gke_accelerator}"
    line="${line//\$\{CHIPS_PER_HOST\}/$chips_per_host}"
    line="${line//\$\{IMAGE\}/$image}"
    # Not by replacement, in which some versions of bash give & and \ a meaning.
    [[ "$line" != *\$\{COMMAND\}* ]] || line="${line%%\$\{*}$commands"
    echo "$line"
  done <"$here/gke.yaml"
}

check
commands="$(listed "${command[@]}")"
rendered="$(manifest)"
create=(kubectl create ${namespace:+"--namespace=$namespace"} -f -)
if [ -n "$dry_run" ]; then
  printf "%s <<'END_OF_JOBSET'\n%s\nEND_OF_JOBSET\n" "$(quoted "${create[@]}")" "$rendered"
  exit 0
fi
need kubectl "see https://kubernetes.io/docs/tasks/tools"
if ! said="$("${create[@]}" 2>&1 <<<"$rendered")"; then
  case "$said" in
    *AlreadyExists*)
      fail "there is a JobSet $name already; choose another --name: the command goes on with what its workdir holds"
      ;;
    *'no matches for kind "JobSet"'*)
      fail "the cluster does not know JobSets; install them: https://jobset.sigs.k8s.io/docs/installation"
      ;;
  esac
  fail "kubectl: $said"
fi
in="${namespace:+ --namespace=$namespace}"
echo "$said
  what it prints:  kubectl logs$in -f -l jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0
  how it goes:     kubectl get jobset$in $name
  to stop it:      kubectl delete jobset$in $name   (the run stays, and can go on)"
