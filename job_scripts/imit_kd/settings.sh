# shellcheck shell=bash disable=SC2034  # read by common.sh
#
# The settings of all scripts of this folder: small models for speech translation from English to German, which learn from
# references and from a large model for text translation (Hubert, Sokolov & Riezler 2023, arXiv 2307.08426), beside the
# cascade of speech recognition and that model. Fill in the paths; what follows them is published, or works as it is.
#
# Another corpus:         CORPUS=covost2_en_de ./submit.sh
# Another settings file:  SETTINGS=my_settings.sh ./submit.sh     (a copy of this one)
# docs/jobs.md explains the rest.

CORPUS=${CORPUS:-mustc_en_de}  # mustc_en_de, covost2_en_de; or a name of your own

# --- Paths. They may contain $CORPUS. -----------------------------------------------------------------------------

SPEECH=        # directory in which fairseq's recipe for the corpus left manifests, configurations and features
EXPERT=        # checkpoint of the expert, such as model1.pt of WMT19 en-de
DICTIONARIES=  # directory with dict.en.txt and dict.de.txt of the expert
CODES=         # how the expert splits English and German text: its fastBPE codes (bpecodes)
WORK=          # where data, checkpoints, translations and scores go; another directory for each corpus

ASR_MODEL=     # a model for speech recognition with the students' encoder; empty: it is trained
SPEECH_EXPERT= # only for students of the method imit_kd_ast: a model for speech translation, with the dictionary dict.de.txt

# --- Corpus -----------------------------------------------------------------------------------------------------

SOURCE=en
TARGET=de
# What stands behind train, dev and the test sets in the names of the recipe's manifests; its configuration for ASR; the test
# sets.
case $CORPUS in
mustc_en_de)
    ST=_st ASR=_asr ASR_CONFIG=config_asr.yaml
    TESTS=(tst-COMMON)
    ;;
covost2_en_de)
    ST=_st_en_de ASR=_asr_en ASR_CONFIG=config_asr_en.yaml
    TESTS=(test)
    ;;
*) TESTS=() ;; # write them here
esac
# How text becomes what the expert was trained on, before it is split with CODES: options of fairseq-knn st-data process.
# For SentencePiece models of plain text: (--tokenizer none)
PROCESS_OPTIONS=(--tokenizer moses --source-lang "$SOURCE" --target-lang "$TARGET")
# How students read features, as in the recipes: options of fairseq-knn st-data config.
CONFIG_OPTIONS=(--specaugment lb --cmvn utterance)
# How the expert's pieces become German text again, from standard input to standard output. For the WMT19 models: fastBPE,
# then Moses. For SentencePiece: { tr -d ' ' | sed 's/▁/ /g; s/^ //'; }
detokenise() {
    sed -E 's/@@( |$)//g' | sacremoses -q -l "$TARGET" detokenize
}

# --- Students ---------------------------------------------------------------------------------------------------

# METHOD, or METHOD-TEXT. METHOD is a file of CONFIGS/method: nll (references alone), kd (word-level distillation), imit_kd
# (ImitKD-optimal), imit_kd_CE (ImitKD-full), imit_kd_ast (the same with SPEECH_EXPERT). TEXT says what they are trained on:
#   transcripts   the ASR model's transcripts in the place of the corpus' (KDT, ImitKDT)
#   translations  the expert's translations in the place of the references (sequence-level distillation)
#   generated     the ASR model's transcripts, and the expert's translations of them
# And imit_pipeline_nmt_training: a small translation model that reads the ASR model's transcripts (ImitKD-full), the second
# part of a cascade of two small models. Each is a training of its own, on one GPU.
VARIANTS=(nll kd kd-transcripts imit_kd imit_kd_CE imit_kd_CE-transcripts)
CASCADE=yes   # yes: also what the expert makes of the ASR model's transcripts, and of the corpus' own
# All settings of training are in CONFIGS: student.yaml, asr.yaml and cascade_student.yaml, with their sources; empty: those
# of this project.
CONFIGS=
# Options of fairseq-hydra-train that change some of them: (common.seed=3 optimization.max_update=50000)
TRAIN_OPTIONS=()    # of students
ASR_OPTIONS=()
CASCADE_OPTIONS=()  # of imit_pipeline_nmt_training

# --- Decoding, as in fairseq's recipes ----------------------------------------------------------------------------

BEAM=5
LENPEN=1

# --- Machine ----------------------------------------------------------------------------------------------------

DECODE_MAX_TOKENS=50000  # frames in a batch of speech: as many as fit
TEXT_MAX_TOKENS=5000     # tokens in a batch of text
TRAIN_PARTS=16           # parts in which the training set is transcribed and translated
# More options for every run of fairseq-generate. On GPUs: (--fp16)
MODEL_OPTIONS=()

# --- Slurm; without it, one process does it all -------------------------------------------------------------------

GENERATE_TASKS=16  # array tasks; they share the parts of what is transcribed, or translated by the expert
DECODE_TASKS=8     # array tasks; they share what students translate: a task for every variant and set at most
MAX_RESTARTS=20    # how often a job that comes to its time limit puts itself into the queue again

# Options of sbatch. SBATCH_PARTITION, SBATCH_ACCOUNT and the like in the environment work too.
EVERY_JOB=()       # (--partition=NAME --account=NAME)
TRAIN_JOBS=()      # ASR; one for every variant: (--gres=gpu:1 --cpus-per-task=8 --mem=40G --time=24:00:00)
MODEL_JOBS=()      # transcribe, translate, decode: (--gres=gpu:1 --cpus-per-task=4 --mem=20G --time=4:00:00)
