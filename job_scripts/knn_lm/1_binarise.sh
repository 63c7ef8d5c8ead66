#!/usr/bin/env bash
# Step 1, where the text is not binarised yet: fairseq-preprocess with the dictionary of the model, or a new one.
#SBATCH --job-name=knn_lm_binarise
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
    fairseq-preprocess --only-source ${DICTIONARY:+--srcdict "$DICTIONARY"} \
        --trainpref "$TEXT/${FILES[0]}" --validpref "$TEXT/${FILES[1]}" --testpref "$TEXT/${FILES[2]}" \
        --destdir "$1" --workers "${SLURM_CPUS_PER_TASK:-1}"
}

whole "$DATA" binarise
