#!/usr/bin/env bash
# `jetclr generate` or `jetclr embed` shared out over an array of jobs, and a job that joins the parts when all are
# there. Run it where `jetclr` and sbatch are in the PATH. COMMAND is the usual one, with the word PART for its output;
# --shard is added to it.
#
#   bash docs/clusters/slurm-array.sh PARTS OUT COMMAND
#   bash docs/clusters/slurm-array.sh 40 data/qcd jetclr generate --process qcd --jets 1000000 --seed 2 PART
#   bash docs/clusters/slurm-array.sh 8 embeddings/test.h5 jetclr embed runs/toptag stores/toptag/test PART
#
# All nodes must see the stores, the run and OUT. The parts stay in OUT.parts, with their logs; the same command again
# makes only those that are missing.
set -euo pipefail

# Options of sbatch, for each part and for the job that joins them.
each=(--cpus-per-task=8 --time=04:00:00 --requeue) # to embed on a GPU, add --gpus=1
last=(--cpus-per-task=1 --time=01:00:00)

fail() {
    echo "$1" >&2
    exit 2
}
[ $# -ge 5 ] || fail "usage: bash $0 PARTS OUT jetclr generate|embed ... PART ..."
parts=$1 out=$2
shift 2
[ ! -e "$out" ] || fail "$out exists already"
ending=
case $out in *.h5 | *.hdf5 | *.parquet | *.arrow | *.feather | *.root) ending=.${out##*.} ;; esac
folder=$(realpath -m "$out").parts
mkdir -p "$folder"

command="$(printf '%q ' "$1" "$2")--shard \$SLURM_ARRAY_TASK_ID/$parts "
shift 2
named=
for word in "$@"; do
    if [ "$word" = PART ]; then
        command+='"$part" '
        named=yes
    else
        command+=$(printf '%q ' "$word")
    fi
done
[ "$named" ] || fail "the command must name its output PART"

# A part is there only when it is whole.
array=$(sbatch --parsable --job-name=jetclr-parts --array="0-$((parts - 1))" --output="$folder/%a.log" \
    --open-mode=append "${each[@]}" <<END
#!/usr/bin/env bash
part=$(printf '%q' "$folder")/\$SLURM_ARRAY_TASK_ID$ending
[ -e "\$part" ] || srun --cpus-per-task="\${SLURM_CPUS_PER_TASK:-1}" $command
END
)
array=${array%%;*} # the name of the cluster may follow

all=()
for ((part = 0; part < parts; part++)); do all+=("$folder/$part$ending"); done
joined=$(sbatch --parsable --job-name=jetclr-join --output="$folder/join.log" --open-mode=append \
    --dependency="afterok:$array" --kill-on-invalid-dep=yes "${last[@]}" <<END
#!/usr/bin/env bash
srun jetclr join $(printf '%q ' "${all[@]}" "$out")
END
)
echo "$parts parts: job $array; then $out: job ${joined%%;*}"
