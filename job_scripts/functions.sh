# shellcheck shell=bash
# What the scripts of all folders share. The common.sh of a folder sources it and has set $here, that folder.

# One sentence, status 1. (Under sbatch the script itself has another name.)
die() {
    echo "${SLURM_JOB_NAME:-${0##*/}}: $*" >&2
    exit 1
}

# What a script is called with. The comment at its head is its help.
dry_run=''
for argument; do
    case $argument in
    -h | --help)
        sed -n -e '/^#!/d; /^#SBATCH/d; /^#/!q; s/^# \{0,1\}//p' "$0"
        exit
        ;;
    --dry-run)
        [[ $0 == */submit.sh || $0 == submit.sh ]] || die "only submit.sh has --dry-run"
        dry_run=yes
        ;;
    *) die "there is no '$argument' here: --help says what there is" ;;
    esac
done

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
# What is the same for all folders on one cluster; it comes last, so it counts.
if [[ -n ${CLUSTER:-} ]]; then
    [[ -f $CLUSTER ]] || die "there is no file $CLUSTER, which CLUSTER names"
    CLUSTER=$(realpath "$CLUSTER")
    export CLUSTER
    # shellcheck source=/dev/null
    source "$CLUSTER"
fi
need WORK

# Puts the job back into the queue, after it has ended a process of it.
requeue() {
    # The number of the job alone would mean the whole array for that task of it which has the array's own number.
    local job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}
    if (($#)); then
        kill "$1" || true
        wait "$1" || true # nothing may be writing when the job starts again
    fi
    ((${SLURM_RESTART_COUNT:-0} < MAX_RESTARTS)) ||
        die "restarted ${SLURM_RESTART_COUNT:-0} times and not done: raise the time limit, or MAX_RESTARTS in $SETTINGS"
    echo "time is nearly up: job $job goes back into the queue"
    scontrol requeue "$job"
    exit 0
}
# The signal can come before there is a process, where the time limit is short; it would end a script that has no trap.
[[ -z ${SLURM_JOB_ID:-} ]] || trap requeue USR1

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
    trap requeue USR1
}

# Makes a directory by a function, which is told another name for it until it is whole. What is there is kept.
whole() {
    local directory=$1 make=$2
    if [[ -e $directory ]]; then
        echo "$directory is there already"
        return
    fi
    rm -rf "$directory.partial"
    "$make" "$directory.partial"
    mv "$directory.partial" "$directory"
}

# Lines of a file; wc would not count a last one that does not end.
lines_of() {
    awk 'END { print NR }' "$1"
}

# What fairseq-generate has printed, lines of a kind (D: text, H: pieces), as text in the order of the sentences. They
# must be numbered from 0 without a gap, and so many.
in_order() {
    local kind=$1 sentences=$2 text=$3 wrong=$4 parts=("${@:5}")
    local numbered=$text.${SLURM_JOB_ID:-$$}.partial # other jobs may collect the same
    sed -n "s/^$kind-//p" "${parts[@]}" | LC_ALL=C sort -n | cut -f 1,3 >"$numbered"
    cut -f 1 "$numbered" | cmp -s - <(seq 0 $((sentences - 1))) || die "$wrong"
    cut -f 2- "$numbered" >"$numbered.text"
    mv "$numbered.text" "$text"
    rm "$numbered"
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

# Submits a step, with options of sbatch; an array of so many tasks; each waits for the one before it.
step() {
    submit %x-%j "$@"
}

array() {
    submit %x-%A_%a "${@:2}" --array="0-$(($1 - 1))"
}

# Where there is no sbatch, it runs the step here and now; --dry-run only shows what would be submitted.
previous=''
submit() {
    local log=$1 script=$2 line
    if [[ -z $dry_run ]] && ! command -v sbatch >/dev/null; then
        echo "--- $script"
        bash "$here/$script"
        return
    fi
    # Without kill-on-invalid-dep, what waits for a job that failed would wait for ever.
    local command=(sbatch --parsable --export=ALL --output="$WORK/logs/$log.log"
        ${previous:+--dependency="afterok:$previous" --kill-on-invalid-dep=yes}
        "${EVERY_JOB[@]}" "${@:3}" "$here/$script")
    if [[ -n $dry_run ]]; then
        printf -v line '%q ' "${command[@]}"
        echo "${line% }"
        previous=JOB_OF_$script
        return
    fi
    mkdir -p "$WORK/logs"
    previous=$("${command[@]}")
    previous=${previous%%;*} # sites with several clusters append their name
    echo "$script: job $previous"
}
