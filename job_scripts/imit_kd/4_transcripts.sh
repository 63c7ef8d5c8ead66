#!/usr/bin/env bash
# Step 4, after 3_transcribe.sh: splits the ASR model's transcripts as the expert's text was, for 5_translate.sh, and puts
# them into manifests: in the place of the training set's, $WORK/data/train_transcripts.tsv, and beside those of every set,
# $WORK/data/SPLIT_cascade.tsv. Started again, it skips what is there.
#SBATCH --job-name=imit_kd_transcripts
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need DICTIONARIES CODES

for split in "${asr_sets[@]}"; do
    made=$DATA/${split}_cascade.tsv
    parts=("$GENERATED/asr/$split".part-*)
    if is_newer "$made" "${parts[@]}"; then
        echo "$made is there already"
        continue
    fi
    plain=$TRANSCRIPTS/plain/$split
    mkdir -p "$TRANSCRIPTS/plain"
    collect asr "$split" D "$plain.transcripts" 3_transcribe.sh
    fairseq-knn st-data insert "$DATA/plain/$split.tsv" --ids "$DATA/plain/$split.ids" --src-text "$plain.transcripts" \
        --output "$plain.tsv"
    process "$plain.tsv" "$TRANSCRIPTS/$split.tsv"
    if [[ $split == train ]]; then
        # The expert cannot be asked about nothing: utterances in which the ASR model heard none are left out.
        without_blank "$TRANSCRIPTS/train.tsv" "$DATA/train_transcripts.tsv"
    fi
    extract_source "$TRANSCRIPTS/$split.tsv" "$TRANSCRIPTS/$split"
    # Both have the same lines.
    paste "$DATA/$split.tsv" <(echo asr_text && cat "$TRANSCRIPTS/$split.$SOURCE") >"$DATA/$split.cascade.partial"
    mv "$DATA/$split.cascade.partial" "$made"
done
