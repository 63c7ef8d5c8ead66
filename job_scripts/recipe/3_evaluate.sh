#!/usr/bin/env bash
# Step 3: translates the test pairs with the best checkpoint and scores them. BLEU and chrF are also in
# $WORK/model/evaluation.json, with sacreBLEU's signatures.
#SBATCH --job-name=recipe_evaluate
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

[[ -e $MODEL/finished.txt ]] || die "$MODEL is not trained to the end: run 2_train.sh first"
fairseq-knn recipe evaluate "${recipe[@]}"
