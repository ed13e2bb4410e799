#!/usr/bin/env bash
# Pretraining on several nodes: one process a node, on all GPUs of it. Two minutes before the time limit it saves, and
# the job goes back into the queue until it has finished.
#
#   sbatch docs/clusters/slurm.sh CONFIG RUN [settings of `jetclr pretrain`]
#
# Submit it where `jetclr` is in the PATH, which the job takes over. The stores and RUN lie where all nodes see them.
# Options of sbatch on its command line override those here.

#SBATCH --job-name=jetclr
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append

# Without B: before TERM the signal goes to the processes that srun started, and not to this script, which must outlive
# them to see their exit status.

most_restarts=100 # a run that never comes to its end must not stay in the queue for ever
again=75          # exit status: stopped by SIGTERM, and saved

if [ $# -lt 2 ]; then
    echo "usage: sbatch $0 CONFIG RUN [SETTING ...]" >&2
    exit 2
fi
config=$1 run=$2
shift 2

# A process that ends takes the others along by itself, once they have saved: srun must not kill them before. And srun
# does not take over --cpus-per-task from sbatch in every version.
srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    jetclr pretrain "$config" --workdir "$run" "$@"
status=$?

if [ "$status" -eq "$again" ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "$most_restarts" ]; then
        echo "$run: restarted $SLURM_RESTART_COUNT times and not finished; submit it again to go on" >&2
    elif ! scontrol requeue "$SLURM_JOB_ID"; then
        echo "$run: this job cannot be queued again; submit it again to go on" >&2
    fi
fi
exit "$status"
