#!/usr/bin/env bash
# Step 8: the students translate development and test sets; that of the cascade, the ASR model's transcripts of them. An array: its tasks share variants and sets. Started again, it
# skips what is there.
#SBATCH --job-name=imit_kd_decode
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
describe() {
    local model=$TRAININGS/$1/checkpoint_best.pt
    [[ -e $TRAININGS/$1/finished.txt ]] || die "$TRAININGS/$1 is not trained to the end: run 7_train.sh first"
    if [[ $1 == "$CASCADE_STUDENT" ]]; then
        describe_text "$TRANSCRIPTS/$2.bin" "$model"
        return
    fi
    command=(fairseq-generate "$DATA" --config-yaml config.yaml --gen-subset "$2" --task speech_to_text
        --user-dir "$USER_DIR" --path "$model" --beam "$BEAM" --lenpen "$LENPEN" --max-tokens "$DECODE_MAX_TOKENS")
    inputs=("$model" "$DATA/$2.tsv")
}
for variant in "${VARIANTS[@]}"; do
    generate "$variant" "${SPLITS[@]}"
done
