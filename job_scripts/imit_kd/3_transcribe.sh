#!/usr/bin/env bash
# Step 3, for the cascade and for variants that learn from transcripts: the ASR model transcribes the sets they need. An
# array: its tasks share them, the training set in TRAIN_PARTS parts. Started again, it skips what is there.
#SBATCH --job-name=imit_kd_transcribe
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need SPEECH
need_asr

# The students' utterances with the ASR model's configuration. A name that does not begin with "train" has fairseq take the
# features as they are, without SpecAugment, also those of the training set.
describe() {
    command=(fairseq-generate "$SPEECH" --config-yaml "$ASR_CONFIG" --gen-subset "$DATA/$2" --task speech_to_text
        --user-dir "$USER_DIR" --path "$ASR_CHECKPOINT" --beam "$BEAM" --lenpen "$LENPEN" --max-tokens "$DECODE_MAX_TOKENS")
    inputs=("$ASR_CHECKPOINT" "$DATA/$2.tsv")
}
generate asr "${asr_sets[@]}"
