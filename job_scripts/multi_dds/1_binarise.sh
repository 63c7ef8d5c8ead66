#!/usr/bin/env bash
# Step 1, where the group is not binarised yet: one dictionary for all its languages and one for English, both from the
# training text, and fairseq-preprocess for each pair.
#SBATCH --job-name=multi_dds_binarise
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need DATA

binarise() {
    need TEXT
    local language folder joint=$1/joint workers=(--workers "${SLURM_CPUS_PER_TASK:-1}")
    mkdir -p "$joint"
    for language in "${LANGUAGES[@]}"; do
        cat "$TEXT/$language-$ENGLISH/train.$language" >>"$joint/train.languages"
        cat "$TEXT/$language-$ENGLISH/train.$ENGLISH" >>"$joint/train.$ENGLISH"
    done
    fairseq-preprocess --source-lang languages --target-lang "$ENGLISH" --trainpref "$joint/train" --dict-only \
        --destdir "$joint" "${workers[@]}"
    for language in "${LANGUAGES[@]}"; do
        folder=$TEXT/$language-$ENGLISH
        fairseq-preprocess --source-lang "$language" --target-lang "$ENGLISH" \
            --srcdict "$joint/dict.languages.txt" --tgtdict "$joint/dict.$ENGLISH.txt" \
            --trainpref "$folder/train" --validpref "$folder/valid" --testpref "$folder/test" \
            --destdir "$1" "${workers[@]}"
    done
    rm -r "$joint"
}

whole "$DATA" binarise
