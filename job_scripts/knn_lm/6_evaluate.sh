#!/usr/bin/env bash
# Step 6: the perplexity of $SPLIT with the model alone, with kNN-LM, and with RetoMaton for every MIN_KNNS, without and with
# clusters: a file for each system in $WORK/$SPLIT, whose first line is the command. An array: its tasks share the systems.
# Started again, it skips those that are measured, by the same command and from the same files.
#SBATCH --job-name=knn_lm_evaluate
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need BASE DATA BREAK BLOCK CONTEXT K LAMBDA TEMPERATURE

evaluate() {
    local part=$RESULTS/$1.txt
    local command=(fairseq-eval-lm "${MODEL[@]}" --gen-subset "$SPLIT" --sample-break-mode "$BREAK"
        --tokens-per-sample "$BLOCK" --context-window "$CONTEXT" --max-tokens "$MAX_TOKENS"
        --softmax-batch "$SOFTMAX_BATCH" "${TEXT_OPTIONS[@]}" --knn-datastore-path "$STORE" "${@:2}" "${MODEL_OPTIONS[@]}")
    if [[ -e $part && $(head -n 1 "$part") == "${command[*]}" && $part -nt $BASE &&
        $part -nt $STORE/manifest.json && $part -nt $STORE/index.json ]]; then
        echo "$part is there already"
        return
    fi
    echo "measuring: $part"
    mkdir -p "$RESULTS"
    # Under another name until it is whole.
    echo "${command[*]}" >"$part.partial"
    "${command[@]}" >>"$part.partial" 2>&1
    mv "$part.partial" "$part"
}

neighbours=(--knn-k "$K" --knn-lambda "$LAMBDA" --knn-temperature "$TEMPERATURE" --knn-nprobe "$NPROBE")
number=0
for system in $(systems); do
    ((number++ % tasks == task)) || continue
    case $system in
    base) evaluate base --knn-lambda 0 ;; # the model alone, bit for bit
    knn) evaluate knn "${neighbours[@]}" ;;
    retomaton-*)
        clusters=()
        [[ $system != "retomaton-$CLUSTER_NAME-"* ]] || clusters=(--knn-clusters "$CLUSTER_NAME")
        evaluate "$system" "${neighbours[@]}" --knn-retomaton --knn-min-knns "${system##*-}" \
            --knn-max-knns "$MAX_KNNS" "${clusters[@]}"
        ;;
    esac
done
