# shellcheck shell=bash
# What the scripts of all folders share. The common.sh of a folder sources it and has set $here, that folder.

# One sentence, status 1. (Under sbatch the script itself has another name.)
die() {
    echo "${SLURM_JOB_NAME:-${0##*/}}: $*" >&2
    exit 1
}

# Settings a script cannot do without.
need() {
    local name
    for name; do
        [[ -n ${!name:-} ]] || die "$name is empty: fill it in in $SETTINGS"
    done
}

SETTINGS=${SETTINGS:-$here/settings.sh}
[[ -f $SETTINGS ]] || die "there is no settings file $SETTINGS"
SETTINGS=$(realpath "$SETTINGS") # a bare name would be looked for in PATH, too
# shellcheck source-path=SCRIPTDIR source=knn_mt/settings.sh
source "$SETTINGS"
need WORK

# shellcheck disable=SC2034  # for the folders
USER_DIR=$(fairseq-knn path) || die "fairseq-knn does not run: activate the environment fairseq_knn is installed in"

# torch sees all cores of a node, also those of other jobs. A datastore's bytes depend on the number of threads.
[[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

# This process's share: of an array, whatever number its tasks begin with; without an array, everything.
task=0 tasks=1
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    tasks=$SLURM_ARRAY_TASK_COUNT
    task=$(((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}) / ${SLURM_ARRAY_TASK_STEP:-1}))
    ((task < tasks)) || die "the numbers of the array tasks have gaps: submit the whole array, what is done is skipped"
fi

# Runs a command that goes on where it was when it is started again. Scripts that use it ask Slurm for USR1 two
# minutes before the time limit (or preemption); then the job puts itself back into the queue.
resumable() {
    if [[ -z ${SLURM_JOB_ID:-} ]]; then
        "$@"
        return
    fi
    "$@" & # in the background: bash would hold the signal back until the command ends
    local child=$!
    # shellcheck disable=SC2064  # the number of today's child
    trap "requeue $child" USR1
    wait "$child"
}

requeue() {
    # The number of the job alone would mean the whole array for that task of it which has the array's own number.
    local job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}
    kill "$1" || true
    wait "$1" || true # nothing may be writing when the job starts again
    ((${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)) ||
        die "restarted ${SLURM_RESTART_COUNT:-0} times and not done: raise the time limit, or MAX_RESTARTS in $SETTINGS"
    echo "time is nearly up: job $job goes back into the queue"
    scontrol requeue "$job"
    exit 0
}

# A setting for fairseq-hydra-train as hydra reads it, with all characters a path may have.
given() {
    echo "$1='${2//\'/\\\'}'"
}

# Trains with a command, resumably, into a directory; when it is done, finished.txt there is the command.
train() {
    local trained=$1
    shift
    if [[ -e $trained/finished.txt ]]; then
        [[ $(<"$trained/finished.txt") == "$*" ]] ||
            die "$trained was trained by another command (finished.txt): delete it to train anew, or only that file to" \
                "train on"
        echo "$trained is finished already"
        return
    fi
    resumable "$@"
    [[ -e $trained/checkpoint_best.pt ]] || die "nothing was validated: there is no $trained/checkpoint_best.pt"
    echo "$*" >"$trained/finished.txt.partial"
    mv "$trained/finished.txt.partial" "$trained/finished.txt"
}

# Submits a step that waits for the one before it; or, where there is no sbatch, runs it here and now.
previous=''
step() {
    local script=$1
    shift
    if ! command -v sbatch >/dev/null; then
        echo "--- $script"
        bash "$here/$script"
        return
    fi
    # Without kill-on-invalid-dep, what waits for a job that failed would wait for ever.
    previous=$(sbatch --parsable --export=ALL --output="$WORK/logs/%x-%j.log" \
        ${previous:+--dependency="afterok:$previous" --kill-on-invalid-dep=yes} \
        "${EVERY_JOB[@]}" "$@" "$here/$script")
    previous=${previous%%;*} # sites with several clusters append their name
    echo "$script: job $previous"
}

array() {
    local tasks=$1
    shift
    step "$@" --array="0-$((tasks - 1))" --output="$WORK/logs/%x-%A_%a.log"
}
