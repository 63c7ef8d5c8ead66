#!/usr/bin/env bash
# Step 4: puts the translations into the order of the test sets ($WORK/translations/VARIANT/LANGUAGE.txt), makes sure that no
# sentence is missing, and scores the text: a line for every variant with the BLEU of every language and their mean, and
# sacreBLEU's signature. Also in $WORK/scores.txt.
#SBATCH --job-name=multi_dds_score
#SBATCH --requeue
set -euo pipefail
# sbatch runs a copy of this file elsewhere: the folder is then $JOB_SCRIPTS (submit.sh), or where sbatch was called.
here=$(dirname "${BASH_SOURCE[0]}")
[[ -e $here/common.sh ]] || here=${JOB_SCRIPTS:-${SLURM_SUBMIT_DIR:-.}}
# shellcheck source-path=SCRIPTDIR source=common.sh
source "$here/common.sh"
need REFERENCES

score() {
    local part=$TRANSLATIONS/$1/$2.generated text=$TRANSLATIONS/$1/$2.txt reference sentences wrong
    pair "$2"
    reference=$REFERENCES/$2-$ENGLISH/test.$target
    [[ -f $reference ]] || die "there is no reference $reference"
    [[ -e $part ]] || die "there is no $part: run 3_translate.sh first"
    sentences=$(lines_of "$reference")
    wrong="the translations in $part are not those of the $sentences sentences of $reference: some are missing, or it"
    in_order D "$sentences" "$text" "$wrong is the reference of another test set" "$part"
    sacrebleu "$reference" -i "$text" -m bleu -f text -w 2 # SIGNATURE = BLEU ...
}

mkdir -p "$TRANSLATIONS"
scores=$TRANSLATIONS/bleu.txt
for variant in "${VARIANTS[@]}"; do
    for language in "${LANGUAGES[@]}"; do
        bleu=$(score "$variant" "$language")
        echo "$variant $language $bleu"
    done
done >"$scores.partial"
mv "$scores.partial" "$scores"
awk -v languages="${LANGUAGES[*]}" '
    function cell(value) { printf " %7s", value }
    BEGIN {
        count = split(languages, names, " ")
        printf "%-14s", "sampling"
        for (i = 1; i <= count; i++) cell(names[i])
        cell("mean")
    }
    (NR - 1) % count == 0 { printf "\n%-14s", $1; sum = 0 }
    { cell($5); sum += $5; signature = $3 }
    NR % count == 0 { cell(sprintf("%.2f", sum / count)) }
    END { print "\n\n" signature }
' "$scores" | tee "$WORK/scores.txt.partial"
mv "$WORK/scores.txt.partial" "$WORK/scores.txt"
