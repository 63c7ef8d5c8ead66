# shellcheck shell=bash disable=SC2034  # read by common.sh
#
# The settings of all scripts of this folder: one model for eight languages of the TED corpus, with the ways to sample them
# that MultiDDS (Wang, Tsvetkov & Neubig 2020, arXiv 2004.06748) is compared with. Fill in the paths; what follows them is
# published, or works as it is.
#
# Other languages:        GROUP=diverse ./submit.sh
# The other direction:    DIRECTION=o2m ./submit.sh
# Another settings file:  SETTINGS=my_settings.sh ./submit.sh     (a copy of this one)
# docs/jobs.md explains the rest.

GROUP=${GROUP:-related}        # related, diverse; or a name of your own
DIRECTION=${DIRECTION:-m2o}    # m2o: the languages to English; o2m: English to the languages

# --- Paths. They may contain $GROUP and $DIRECTION. ---------------------------------------------------------------

DATA=         # the group, binarised, for both directions; 1_binarise.sh can make it
REFERENCES=   # directory with LANGUAGE-eng/test.LANGUAGE and test.eng as plain text, one sentence a line
WORK=         # where checkpoints, translations and scores go; another directory for each group and direction

# Only where DATA is still to be made:
TEXT=         # directory with LANGUAGE-eng/{train,valid,test}.{LANGUAGE,eng}, split into pieces

# --- Languages and text -----------------------------------------------------------------------------------------

# As they are called in names of files.
case $GROUP in
related) LANGUAGES=(aze tur bel rus glg por slk ces) ;;
diverse) LANGUAGES=(bos mar hin mkd ell bul fra kor) ;;
*) LANGUAGES=() ;; # write them here
esac
ENGLISH=eng   # the language that all of them are paired with
# How pieces become text again, options of fairseq-generate. The authors: SentencePiece, 8,000 pieces for each language.
TEXT_OPTIONS=(--remove-bpe sentencepiece)

# --- Training ---------------------------------------------------------------------------------------------------

# Ways to sample languages, files of CONFIGS/sampling: probabilities in proportion to size, with a temperature of 5, the
# same for all; learned. Each is a training of its own, on one GPU.
VARIANTS=(proportional temperature uniform multidds multidds_s)
# All settings of training are in CONFIGS/ted8.yaml, with their source; empty: those of this project.
CONFIGS=
# Options of fairseq-hydra-train that change some of them: (common.seed=3 optimization.max_epoch=10)
TRAIN_OPTIONS=()

# --- Decoding, as published -------------------------------------------------------------------------------------

BEAM=5
LENPEN=1

# --- Machine ----------------------------------------------------------------------------------------------------

DECODE_MAX_TOKENS=4096  # tokens in a batch: as many as fit
# More options for every run of fairseq-generate. On GPUs: (--fp16)
MODEL_OPTIONS=()

# --- Slurm; without it, one process does it all -------------------------------------------------------------------

TRANSLATE_TASKS=8  # array tasks; they share the test sets: one for every variant and language
MAX_RESTARTS=20    # how often a job that comes to its time limit puts itself into the queue again

# Options of sbatch. SBATCH_PARTITION, SBATCH_ACCOUNT and the like in the environment work too.
EVERY_JOB=()       # (--partition=NAME --account=NAME)
TRAIN_JOBS=()      # one for every variant: (--gres=gpu:1 --cpus-per-task=4 --mem=15G --time=8:00:00)
MODEL_JOBS=()      # translate: (--gres=gpu:1 --cpus-per-task=4 --mem=15G --time=2:00:00)
