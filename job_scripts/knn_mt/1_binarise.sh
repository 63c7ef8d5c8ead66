#!/usr/bin/env bash
# Step 1, where the domain is not binarised yet: fairseq-preprocess with the dictionaries of the base model.
#SBATCH --job-name=knn_mt_binarise
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need DATA

binarise() {
    need TEXT DICTIONARIES
    fairseq-preprocess --source-lang "$SOURCE" --target-lang "$TARGET" \
        --srcdict "$DICTIONARIES/dict.$SOURCE.txt" --tgtdict "$DICTIONARIES/dict.$TARGET.txt" \
        --trainpref "$TEXT/train" --validpref "$TEXT/valid" --testpref "$TEXT/test" \
        --destdir "$1" --workers "${SLURM_CPUS_PER_TASK:-1}"
}

whole "$DATA" binarise
