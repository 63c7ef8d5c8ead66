#!/usr/bin/env bash
# Step 7: puts the parts of all array tasks together in the order of the test set, makes sure that no sentence is
# missing, and scores the text: $WORK/{base,knn}.txt, $WORK/scores.txt; with a COMBINER that is trained its name is in
# the place of knn, and the scores are in $WORK/scores.COMBINER.txt.
#SBATCH --job-name=knn_mt_score
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need REFERENCE
[[ -f $REFERENCE ]] || die "there is no reference $REFERENCE"
sentences=$(lines_of "$REFERENCE")

collect() {
    local parts=$WORK/$1 command world rank part wrong all=()
    [[ -e $parts/part-0.txt ]] || die "there is no $parts/part-0.txt: run 6_decode.sh first"
    command=$(head -n 1 "$parts/part-0.txt")
    world=$(sed -E 's/.* --distributed-world-size ([0-9]+) .*/\1/' <<<"$command")
    for ((rank = 0; rank < world; rank++)); do
        part=$parts/part-$rank.txt
        # One command but for the rank: parts of different settings must not be mixed.
        [[ -e $part && $(head -n 1 "$part") == "${command/ --distributed-rank 0 / --distributed-rank $rank }" ]] ||
            die "$part, one of $world, is missing or was made by another command: run 6_decode.sh again"
        all+=("$part")
    done
    wrong="the translations in $parts are not those of the $sentences sentences of $REFERENCE: some are missing, or it"
    in_order D "$sentences" "$parts.txt" "$wrong is the reference of another test set" "${all[@]}"
}

collect base
collect "$SYSTEM"
for system in base "$SYSTEM"; do
    sacrebleu "$REFERENCE" -i "$WORK/$system.txt" -m bleu chrf -f text | sed "s/^/$system /"
done | tee "$SCORES.partial"
mv "$SCORES.partial" "$SCORES"
