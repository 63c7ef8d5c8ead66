#!/usr/bin/env bash
# Step 6: translates the test split, with the base model alone and with the datastore. An array: each task translates
# its batches into $WORK/{base,knn}/part-TASK.txt (for knn the COMBINER, if it is trained), whose first line is the
# command. Started again, it skips parts that are whole and were made by the same command from the same files.
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

if [[ $COMBINER != vanilla ]]; then
    [[ -e $TRAINED/finished.txt ]] || die "$TRAINED is not trained to the end: run 5_train.sh first"
elif [[ $TUNE == yes ]]; then
    [[ -s $TUNED ]] || die "there is no $TUNED: run 5_tune.sh first, or set TUNE=no"
    read -ra neighbours <"$TUNED"
else
    need K LAMBDA TEMPERATURE
    neighbours=(--knn-k "$K" --knn-lambda "$LAMBDA" --knn-temperature "$TEMPERATURE")
fi

decode() {
    local part=$WORK/$1/part-$task.txt
    local command=(fairseq-generate "${TASK[@]}" --path "$2" "${SHARE[@]}" --gen-subset test --beam "$BEAM" --lenpen "$LENPEN"
        --max-len-a "$MAX_LEN_A" --max-len-b "$MAX_LEN_B" --max-tokens "$DECODE_MAX_TOKENS" "${TEXT_OPTIONS[@]}"
        "${@:3}" "${MODEL_OPTIONS[@]}")
    if [[ -e $part && $(head -n 1 "$part") == "${command[*]}" && $part -nt $BASE &&
        $part -nt $2 && $part -nt $STORE/manifest.json && $part -nt $STORE/index.json ]]; then
        echo "$part is there already"
        return
    fi
    echo "translating: $part"
    mkdir -p "$WORK/$1"
    # Under another name until it is whole; jobs of several combiners may translate with the base at the same time.
    echo "${command[*]}" >"$part.$SYSTEM.partial"
    "${command[@]}" >>"$part.$SYSTEM.partial"
    mv "$part.$SYSTEM.partial" "$part"
}

decode base "$BASE" --knn-datastore-path "$STORE" --knn-lambda 0 # the model alone, bit for bit
if [[ $COMBINER == vanilla ]]; then
    decode "$SYSTEM" "$BASE" --knn-datastore-path "$STORE" --knn-nprobe "$NPROBE" "${neighbours[@]}"
else
    decode "$SYSTEM" "$TRAINED/checkpoint_best.pt" # it knows base, datastore, k and NPROBE
fi
