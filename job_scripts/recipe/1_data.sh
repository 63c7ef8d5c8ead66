#!/usr/bin/env bash
# Step 1: splits the pairs, trains the tokenizer and binarises the text, into $WORK/data, and shows what came out. Needs no
# GPU. What is there is kept.
#SBATCH --job-name=recipe_data
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

fairseq-knn recipe test "${recipe[@]}" tokenizer valid_data test_data
