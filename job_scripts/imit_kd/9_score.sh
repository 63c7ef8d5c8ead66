#!/usr/bin/env bash
# Step 9: makes text of all translations ($WORK/translations/SYSTEM/SPLIT.txt), makes sure that no sentence is missing, and
# scores it: a line for every system with the BLEU of every set, and sacreBLEU's signature. Also in $WORK/scores.txt.
#SBATCH --job-name=imit_kd_score
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
systems=("${VARIANTS[@]}")
[[ $CASCADE != yes ]] || systems=(expert cascade "${systems[@]}")
translations=$WORK/translations

score() {
    local system=$1 split=$2 text=$translations/$1/$2 script=8_decode.sh reference=$DATA/plain/$2.tgt_text
    [[ $system != expert && $system != cascade ]] || script=5_translate.sh
    mkdir -p "$translations/$system"
    collect "$system" "$split" H "$text.pieces" "$script"
    detokenise <"$text.pieces" >"$text.txt"
    sacrebleu "$reference" -i "$text.txt" -m bleu -f text -w 1 # SIGNATURE = BLEU ...
}

mkdir -p "$translations"
scores=$translations/bleu.txt
for system in "${systems[@]}"; do
    for split in "${SPLITS[@]}"; do
        bleu=$(score "$system" "$split")
        echo "$system $split $bleu"
    done
done >"$scores.partial"
mv "$scores.partial" "$scores"
awk -v splits="${SPLITS[*]}" '
    function cell(value) { printf " %11s", value }
    BEGIN {
        count = split(splits, names, " ")
        printf "%-24s", "system"
        for (i = 1; i <= count; i++) cell(names[i])
    }
    (NR - 1) % count == 0 { printf "\n%-24s", $1 }
    { cell($5); signature = $3 }
    END { print "\n\n" signature }
' "$scores" | tee "$WORK/scores.txt.partial"
mv "$WORK/scores.txt.partial" "$WORK/scores.txt"
