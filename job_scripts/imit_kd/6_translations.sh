#!/usr/bin/env bash
# Step 6, after 5_translate.sh: puts the expert's translations of the training set into manifests for variants that learn
# from them, $WORK/data/train_translations.tsv and train_generated.tsv. Started again, it skips what is there.
#SBATCH --job-name=imit_kd_translations
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
# SYSTEM TEXT MANIFEST: a training set with the translations of a system in the place of those of a manifest.
replace() {
    local pieces=$GENERATED/$1/train.pieces made=$DATA/train_$2.tsv parts=("$GENERATED/$1"/train.part-*)
    if is_newer "$made" "${parts[@]}"; then
        echo "$made is there already"
        return
    fi
    collect "$1" train H "$pieces" 5_translate.sh
    # Transcripts that are blank have no line in the manifest.
    fairseq-knn st-data insert "$3" --ids "$DATA/plain/train.ids" --tgt-text "$pieces" --allow-missing --output "$made"
}

[[ " ${expert_sets[*]} " != *' train '* ]] || replace expert translations "$DATA/train.tsv"
[[ " ${cascade_sets[*]} " != *' train '* ]] || replace cascade generated "$DATA/train_transcripts.tsv"
