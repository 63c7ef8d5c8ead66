# shellcheck shell=bash
# What the scripts of this folder share; they source it and have set $here, this folder.

# shellcheck disable=SC2154 source-path=SCRIPTDIR source=../functions.sh
source "$here/../functions.sh"
need VARIANTS TESTS
WORK=$(realpath -m "$WORK") # the names of sets are paths, which would otherwise begin in another directory
# Manifests of the students; transcripts of the ASR model; checkpoints; what all models generate.
# shellcheck disable=SC2034  # for the scripts
DATA=$WORK/data TRANSCRIPTS=$WORK/transcripts TRAININGS=$WORK/training GENERATED=$WORK/generated
CONFIGS=${CONFIGS:-$here/../../configs/imit_kd}
SPLITS=(dev "${TESTS[@]}")
# The one variant that reads transcripts, and does not hear.
CASCADE_STUDENT=imit_pipeline_nmt_training

# What a variant is trained with.
method_of() { echo "${1%%-*}"; }

# What it is trained on; nothing: the corpus as it is.
text_of() { [[ $1 != *-* ]] || echo "${1#*-}"; }

texts=' '
for variant in "${VARIANTS[@]}"; do
    text=$(text_of "$variant")
    case $variant in
    "$CASCADE_STUDENT"-*) die "$CASCADE_STUDENT learns from both transcripts already: write it alone in $SETTINGS" ;;
    *-transcripts | *-translations | *-generated) texts+="$text " ;;
    *-*) die "$variant is trained on '$text', but must be on transcripts, translations or generated: correct VARIANTS in" \
        "$SETTINGS" ;;
    esac
done
# Sets that the ASR model transcribes, and that the expert translates: from the corpus' transcripts (expert) and from the
# ASR model's (cascade).
# shellcheck disable=SC2034
{
    asr_sets=() expert_sets=() cascade_sets=() hears=$CASCADE learns=no
    [[ ! $texts =~ ' '(transcripts|generated)' ' ]] || learns=yes
    [[ " ${VARIANTS[*]} " != *" $CASCADE_STUDENT "* ]] || hears=yes learns=yes
    [[ $CASCADE != yes ]] || expert_sets=("${SPLITS[@]}") cascade_sets=("${SPLITS[@]}")
    [[ $hears != yes ]] || asr_sets=("${SPLITS[@]}")
    [[ $learns != yes ]] || asr_sets+=(train)
    [[ $texts != *' translations '* ]] || expert_sets+=(train)
    [[ $texts != *' generated '* ]] || cascade_sets+=(train)
}

# Sets ASR_CHECKPOINT, which students start from and which transcribes.
need_asr() {
    ASR_CHECKPOINT=${ASR_MODEL:-$TRAININGS/asr/checkpoint_best.pt}
    [[ -n $ASR_MODEL || -e $TRAININGS/asr/finished.txt ]] ||
        die "$TRAININGS/asr is not trained to the end: run 2_asr.sh first"
    [[ -f $ASR_CHECKPOINT ]] || die "there is no ASR_MODEL $ASR_CHECKPOINT"
}

# The texts of a manifest as those of the expert's training data, into another manifest.
process() {
    fairseq-knn st-data process "$1" --output "$2" --bpe-codes "$CODES" \
        --expert-vocab-src "$DICTIONARIES/dict.$SOURCE.txt" --expert-vocab-tgt "$DICTIONARIES/dict.$TARGET.txt" \
        "${PROCESS_OPTIONS[@]}"
}

# The transcripts of a manifest for the expert's fairseq-generate, into PREFIX.bin.
extract_source() {
    local manifest=$1 prefix=$2
    fairseq-knn st-data extract "$manifest" --columns src_text --output "$prefix"
    mv "$prefix.src_text" "$prefix.$SOURCE"
    # Under another name until it is whole.
    rm -rf "$prefix.bin" "$prefix.bin.partial"
    fairseq-preprocess --source-lang "$SOURCE" --target-lang "$TARGET" --only-source --testpref "$prefix" \
        --srcdict "$DICTIONARIES/dict.$SOURCE.txt" --destdir "$prefix.bin.partial" --workers "${SLURM_CPUS_PER_TASK:-1}"
    cp "$DICTIONARIES/dict.$TARGET.txt" "$prefix.bin.partial"
    mv "$prefix.bin.partial" "$prefix.bin"
}

# A manifest without the lines whose transcript is blank, into another one.
without_blank() {
    awk -F '\t' '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "src_text") column = i }
        NR == 1 || $column ~ /[^ ]/ { print; next }
        { blank++ }
        END { printf "left out: %d utterances without a transcript\n", blank >"/dev/stderr" }
    ' "$1" >"$2.partial"
    mv "$2.partial" "$2"
}

parts_of() {
    if [[ $1 == train ]]; then echo "$TRAIN_PARTS"; else echo 1; fi
}

# Whether a file is there, and newer than others.
is_newer() {
    local other
    [[ -e $1 ]] || return 1
    for other in "${@:2}"; do
        [[ $1 -nt $other ]] || return 1
    done
}

# Runs fairseq-generate for a system on sets, of the parts this process's share, into $GENERATED/SYSTEM/SPLIT.part-PART.
# Parts that are made already are skipped. The script has a function "describe SYSTEM SPLIT" that sets command, without the
# options of the part, and inputs, the files it reads.
number=0
generate() {
    local system=$1 split part parts file command inputs
    for split in "${@:2}"; do
        parts=$(parts_of "$split")
        for ((part = 0; part < parts; part++)); do
            ((number++ % tasks == task)) || continue
            file=$GENERATED/$system/$split.part-$part
            describe "$system" "$split"
            # The part is plain data sharding, no process group. Of a set whose size is not a multiple of 8, the default
            # multiple of batches, stock fairseq would lose the rest.
            command+=(--distributed-world-size "$parts" --distributed-rank "$part" --required-batch-size-multiple 1
                --no-progress-bar "${MODEL_OPTIONS[@]}")
            if is_newer "$file" "${inputs[@]}" && [[ $(head -n 1 "$file") == "${command[*]}" ]]; then
                echo "$file is there already"
                continue
            fi
            echo "generating: $file"
            mkdir -p "${file%/*}"
            # Under another name until it is whole.
            echo "${command[*]}" >"$file.partial"
            "${command[@]}" >>"$file.partial"
            mv "$file.partial" "$file"
        done
    done
}

# The same for a model that reads text: binarised, as extract_source leaves it.
# shellcheck disable=SC2034
describe_text() {
    command=(fairseq-generate "$1" --source-lang "$SOURCE" --target-lang "$TARGET" --gen-subset test --task translation
        --user-dir "$USER_DIR" --path "$2" --beam "$BEAM" --lenpen "$LENPEN" --max-tokens "$TEXT_MAX_TOKENS")
    inputs=("$2" "$1/test.$SOURCE-$TARGET.$SOURCE.idx")
}

# What a system generated for a set, into a file, in the order of the set: lines of a kind of fairseq-generate's, H (pieces)
# or D (text).
collect() {
    local system=$1 split=$2 kind=$3 text=$4 script=$5 parts part first='' file all=() sentences wrong
    parts=$(parts_of "$split")
    for ((part = 0; part < parts; part++)); do
        file=$GENERATED/$system/$split.part-$part
        [[ -e $file ]] || die "there is no $file: run $script first"
        first=${first:-$(head -n 1 "$file")}
        # One command but for the rank: parts of different settings must not be mixed.
        [[ $(head -n 1 "$file") == "${first/ --distributed-rank 0 / --distributed-rank $part }" ]] ||
            die "$file was made by another command than part 0: run $script again"
        all+=("$file")
    done
    sentences=$(($(lines_of "$DATA/$split.tsv") - 1))
    wrong="what $system made of $split is not that of the $sentences sentences of $DATA/$split.tsv"
    in_order "$kind" "$sentences" "$text" "$wrong: run $script again" "${all[@]}"
}
