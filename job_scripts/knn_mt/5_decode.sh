#!/usr/bin/env bash
# Step 5: translates the test split, with the base model alone and with the datastore. An array: each task translates
# its batches into $WORK/{base,knn}/part-TASK.txt, whose first line is the command. Started again, it skips parts that
# are whole and were made by the same command from the same model and datastore.
#SBATCH --job-name=knn_mt_decode
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA

if [[ $TUNE == yes ]]; then
    [[ -s $TUNED ]] || die "there is no $TUNED: run 4_tune.sh first, or set TUNE=no"
    read -ra neighbours <"$TUNED"
else
    need K LAMBDA TEMPERATURE
    neighbours=(--knn-k "$K" --knn-lambda "$LAMBDA" --knn-temperature "$TEMPERATURE")
fi

decode() {
    local part=$WORK/$1/part-$task.txt
    local command=(fairseq-generate "${MODEL[@]}" "${SHARE[@]}" --gen-subset test --beam "$BEAM" --lenpen "$LENPEN"
        --max-len-a "$MAX_LEN_A" --max-len-b "$MAX_LEN_B" --max-tokens "$DECODE_MAX_TOKENS" "${TEXT_OPTIONS[@]}"
        --knn-datastore-path "$STORE" "${@:2}" "${MODEL_OPTIONS[@]}")
    if [[ -e $part && $(head -n 1 "$part") == "${command[*]}" && $part -nt $BASE &&
        $part -nt $STORE/manifest.json && $part -nt $STORE/index.json ]]; then
        echo "$part is there already"
        return
    fi
    echo "translating: $part"
    mkdir -p "$WORK/$1"
    # Under another name until it is whole.
    echo "${command[*]}" >"$part.partial"
    "${command[@]}" >>"$part.partial"
    mv "$part.partial" "$part"
}

decode base --knn-lambda 0 # the model alone, bit for bit
decode knn --knn-nprobe "$NPROBE" "${neighbours[@]}"
