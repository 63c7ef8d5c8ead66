#!/usr/bin/env bash
# Step 7: one line for every system: its perplexity, the fraction of searches that were saved, and the speed. Also in
# $WORK/$SPLIT.txt.
#SBATCH --job-name=knn_lm_table
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"

for system in $(systems); do
    [[ -e $RESULTS/$system.txt ]] || die "there is no $RESULTS/$system.txt: run 6_evaluate.sh first"
done
{
    printf '%-28s %10s %6s %10s\n' system perplexity FoSS tokens/s
    for system in $(systems); do
        part=$RESULTS/$system.txt
        perplexity=$(sed -n 's/.*Perplexity: \([0-9.]*\).*/\1/p' "$part")
        speed=$(sed -n 's/.*(\([0-9.]*\) tokens\/s).*/\1/p' "$part")
        foss=$(sed -n 's/.*"knn_foss": \([0-9.e-]*\).*/\1/p' "$part")
        printf '%-28s %10s %6s %10s\n' "$system" "$perplexity" "${foss:--}" "$speed"
    done
} | tee "$RESULTS.txt.partial"
mv "$RESULTS.txt.partial" "$RESULTS.txt"
