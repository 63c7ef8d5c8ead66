#!/usr/bin/env bash
# Step 3: translates the test set of every language with the model of every variant, into
# $WORK/translations/VARIANT/LANGUAGE.generated, whose first line is the command. An array: its tasks share these test sets.
# Started again, it skips those that are translated, by the same command with the same checkpoint.
#SBATCH --job-name=multi_dds_translate
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need DATA

translate() {
    local model=$TRAININGS/$1/checkpoint_best.pt part=$TRANSLATIONS/$1/$2.generated
    [[ -e $TRAININGS/$1/finished.txt ]] || die "$TRAININGS/$1 is not trained to the end: run 2_train.sh first"
    pair "$2"
    # Positions are sines, which have no end: test sentences longer than those of training are translated, too.
    local command=(fairseq-generate "$DATA" --user-dir "$USER_DIR" --task translation_multi_dds --lang-pairs "$PAIRS"
        --source-lang "$source" --target-lang "$target" ${TAG:+--encoder-langtok "$TAG"} --path "$model"
        --model-overrides "{'max_source_positions': 1024, 'max_target_positions': 1024}"
        --gen-subset test --beam "$BEAM" --lenpen "$LENPEN" --max-tokens "$DECODE_MAX_TOKENS"
        --no-progress-bar "${TEXT_OPTIONS[@]}" "${MODEL_OPTIONS[@]}")
    if [[ -e $part && $(head -n 1 "$part") == "${command[*]}" && $part -nt $model ]]; then
        echo "$part is there already"
        return
    fi
    echo "translating: $part"
    mkdir -p "${part%/*}"
    # Under another name until it is whole.
    echo "${command[*]}" >"$part.partial"
    "${command[@]}" >>"$part.partial"
    mv "$part.partial" "$part"
}

number=0
for variant in "${VARIANTS[@]}"; do
    for language in "${LANGUAGES[@]}"; do
        ((number++ % tasks == task)) || continue
        translate "$variant" "$language"
    done
done
