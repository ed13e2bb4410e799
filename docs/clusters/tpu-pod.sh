#!/usr/bin/env bash
# Pretraining on a slice of spot TPUs, one process a host, on all chips of it. The slice is requested as a queued
# resource, requested again when it was preempted, and given back when the run has finished. Run it where it can stay
# for days: on a small VM, in tmux.
#
#   bash docs/clusters/tpu-pod.sh CONFIG RUN [settings of `jetclr pretrain`]
#
# CONFIG, RUN and the stores are paths in `folder` below, on a file system (NFS, as Filestore) that all hosts mount.
set -uo pipefail

name=jetclr
zone=us-central2-b
type=v4-32
version=tpu-ubuntu2204-base
folder=/shared/jetclr
# What a new host needs, in the words of its shell. The wheel: pip wheel --no-deps .
setup='
set -e
if ! mountpoint -q /shared; then
    sudo apt-get -q update
    sudo apt-get -qy install nfs-common python3.11-venv
    sudo mkdir -p /shared
    sudo mount -t nfs 10.0.0.2:/shared /shared
fi
if ! [ -x ~/jetclr/bin/jetclr ]; then
    python3.11 -m venv ~/jetclr
    ~/jetclr/bin/pip install -q -c /shared/jetclr/constraints.txt "/shared/jetclr/jetclr-0.1.0-py3-none-any.whl[tpu]"
fi'

again=75 # exit status: stopped by SIGTERM, and saved

if [ $# -lt 2 ]; then
    echo "usage: bash $0 CONFIG RUN [SETTING ...]" >&2
    exit 2
fi
config=$1 run=$2
shift 2

tpus() { gcloud compute tpus "$@" --zone="$zone" --quiet; }
everywhere() { tpus tpu-vm ssh "$name" --worker=all --command="$1"; }
delete() { tpus queued-resources delete "$name" --force; }

# none, waiting, ready, lost or failed
slice() {
    local request node
    request=$(tpus queued-resources describe "$name" --format='value(state.state)' 2>/dev/null)
    node=$(tpus tpu-vm describe "$name" --format='value(state)' 2>/dev/null)
    case $request/$node in
    /) echo none ;;
    FAILED/*) echo failed ;;
    SUSPEND* | */PREEMPTED | */TERMINATED) echo lost ;;
    ACTIVE/READY) echo ready ;;
    *) echo waiting ;;
    esac
}

while true; do
    case $(slice) in
    none)
        tpus queued-resources create "$name" --node-id="$name" --accelerator-type="$type" \
            --runtime-version="$version" --spot || exit 1
        ;;
    waiting) sleep 60 ;;
    lost) delete || exit 1 ;; # one that was preempted never comes back, and its name is taken
    failed)
        echo "the request for $type in $zone failed; look at it, and delete it, with gcloud" >&2
        exit 1
        ;;
    ready)
        everywhere "$setup" &&
            everywhere "cd $folder && ~/jetclr/bin/jetclr pretrain $(printf '%q ' "$config" --workdir "$run" "$@")"
        status=$?
        if [ "$status" -eq 0 ]; then
            delete
            exit
        fi
        sleep 60 # what became of the slice shows after a while
        if [ "$status" -ne "$again" ] && [ "$(slice)" = ready ]; then
            echo "ended with status $status; the slice is kept, and costs: gcloud compute tpus queued-resources" \
                "delete $name --zone=$zone --force" >&2
            exit "$status"
        fi
        ;;
    esac
done
