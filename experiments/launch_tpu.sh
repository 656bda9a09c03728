#!/usr/bin/env bash
# Runs a study on a slice of Cloud TPUs: creates it, installs, runs on all
# workers, fetches the report and deletes the slice.
#
#   experiments/launch_tpu.sh --name=w2s --zone=us-east5-b --type=v5p-64 \
#       --workdir=gs://BUCKET/runs/nlp [--version=v2-alpha-tpuv5] [--spot] \
#       [--fetch=runs/nlp] [--attempts=10] [--keep] [--dry-run] \
#       -- --config=configs/nlp.py --config.mesh.fsdp=8
#
# Flags after -- are passed to experiments/main.py. A study that was asked to
# stop (by SIGTERM to any worker) is restarted in place; a preempted slice is
# created again; both resume from the last checkpoint. An error of the study
# ends the script. --keep leaves the slice running, --dry-run prints the
# commands instead of running them.
set -euo pipefail
cd "$(dirname "$0")/.."

name='' zone='' type='' workdir='' fetch='' version='tpu-ubuntu2204-base'
spot='' keep='' dry='' attempts=10
while (($#)); do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --fetch=*) fetch=${1#*=} ;;
    --attempts=*) attempts=${1#*=} ;;
    --spot) spot=--spot ;;
    --keep) keep=1 ;;
    --dry-run) dry=1 ;;
    --) shift; break ;;
    *) echo "error: $1 is not a flag of $0; see its first lines." >&2; exit 2 ;;
  esac
  shift
done
for flag in name zone type workdir; do
  [[ -n ${!flag} ]] || { echo "error: --$flag= is missing." >&2; exit 2; }
done
[[ $workdir == gs://* ]] || { echo 'error: --workdir= must be gs://.' >&2; exit 2; }
(($#)) || { echo 'error: -- --config=... is missing.' >&2; exit 2; }

step() {
  if [[ $dry ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}

tpu() {
  local verb=$1
  shift
  step gcloud compute tpus tpu-vm "$verb" "$@" "--zone=$zone"
}

on_all() {
  tpu ssh "$name" --worker=all "--command=$1"
}

create() {
  tpu create "$name" "--accelerator-type=$type" "--version=$version" $spot
  step git archive --format=tar.gz "--output=$code/w2s_jax.tar.gz" HEAD
  tpu scp "$code/w2s_jax.tar.gz" "$name:" --worker=all
  # uv brings a newer Python than that of most TPU images.
  on_all "mkdir -p w2s_jax && tar xzf w2s_jax.tar.gz -C w2s_jax && cd w2s_jax &&
    python3 -m pip install -q uv && python3 -m uv venv -q --python=3.12 .venv &&
    python3 -m uv pip install -q --python=.venv -e '.[tpu,gcs]'"
}

remove() {
  tpu delete "$name" --quiet
}

is_lost() {
  # A slice in any other state, or none at all, is lost. The state changes a
  # while after the machines are gone.
  local state
  for _ in {1..6}; do
    state=$(gcloud compute tpus tpu-vm describe "$name" "--zone=$zone" \
      '--format=value(state)' 2>/dev/null) || return 0
    [[ $state == READY ]] || return 0
    sleep 10
  done
  return 1
}

code=$(mktemp -d)
trap 'rm -r "$code"' EXIT
# All workers stop at the same step, with 75, and so begin again together.
run="cd w2s_jax || exit; code=75; while [ \$code = 75 ]; do"
run+=" .venv/bin/python experiments/main.py --distributed"
run+=" --workdir=$(printf %q "$workdir") $(printf '%q ' "$@");"
run+=' code=$?; done; exit $code'
for ((attempt = 1; ; attempt++)); do
  create
  if on_all "$run"; then break; fi
  if ! is_lost; then
    echo "error: the study failed; the slice $name is left running." >&2
    exit 1
  fi
  remove || true
  if ((attempt == attempts)); then
    echo "error: the slice was lost $attempts times." >&2
    exit 1
  fi
done
if [[ $fetch ]]; then
  mkdir -p "$fetch"
  for part in results.jsonl report.md report.csv report.html figures; do
    step gcloud storage cp -r "$workdir/$part" "$fetch"
  done
fi
[[ $keep ]] || remove
