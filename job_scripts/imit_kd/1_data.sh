#!/usr/bin/env bash
# Step 1: the students' data, $WORK/data: manifests with translations and transcripts, split as the expert's text was, and the
# configuration that goes with them; for scoring, the translations as they are; for the expert, the transcripts.
#SBATCH --job-name=imit_kd_data
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need SPEECH DICTIONARIES CODES

if [[ -e $DATA ]]; then
    echo "$DATA is there already"
    exit
fi
# Under another name until it is whole.
new=$DATA.partial
rm -rf "$new"
mkdir -p "$new/plain" "$new/text"
for split in train "${SPLITS[@]}"; do
    # The recipes leave out utterances without a text, each for itself; the log says how many are in one alone.
    fairseq-knn st-data merge "$SPEECH/$split$ST.tsv" "$SPEECH/$split$ASR.tsv" --allow-missing \
        --output "$new/plain/$split.tsv"
    process "$new/plain/$split.tsv" "$new/$split.tsv"
    fairseq-knn st-data extract "$new/plain/$split.tsv" --output "$new/plain/$split"
    extract_source "$new/$split.tsv" "$new/text/$split"
done
fairseq-knn st-data config "$new" --name config.yaml --expert-vocab-src "$DICTIONARIES/dict.$SOURCE.txt" \
    --expert-vocab-tgt "$DICTIONARIES/dict.$TARGET.txt" "${CONFIG_OPTIONS[@]}"
mv "$new" "$DATA"
