# shellcheck shell=bash disable=SC2034  # read by common.sh
#
# The settings of all scripts of this folder: German-English kNN-MT on the multi-domain sets of Aharoni & Goldberg
# (2020) with the WMT19 model. Fill in the paths; what follows them is published, or works as it is.
#
# Another domain:         DOMAIN=koran ./submit.sh
# Another combiner:       COMBINER=adaptive ./submit.sh
# Another settings file:  SETTINGS=my_settings.sh ./submit.sh     (a copy of this one)
# docs/jobs.md explains the rest.

DOMAIN=${DOMAIN:-it}
# How neighbours become a distribution: vanilla, or adaptive, kernel_smoothed (KSTER), robust, which are trained first.
COMBINER=${COMBINER:-vanilla}

# --- Paths. They may contain $DOMAIN. ---------------------------------------------------------------------------

BASE=         # checkpoint of the base model, such as wmt19.de-en.ffn8192.pt
DATA=         # the domain, binarised with the dictionaries of the base model; 1_binarise.sh can make it
REFERENCE=    # target side of the test set as plain text: not tokenised, one sentence a line
WORK=         # where the datastore, the translations and the scores go; another directory for each domain

# Only where DATA is still to be made:
TEXT=         # directory with {train,valid,test}.{de,en}, split into the pieces the base model knows
DICTIONARIES= # directory with dict.de.txt and dict.en.txt of the base model

# --- Languages and text -----------------------------------------------------------------------------------------

SOURCE=de
TARGET=en
# How pieces become text again, options of fairseq-generate. For the WMT19 models: fastBPE, then Moses (needs
# sacremoses). For SentencePiece: (--remove-bpe sentencepiece).
TEXT_OPTIONS=(--remove-bpe --tokenizer moses)

# --- Neighbours, vanilla: what was published for this base model ------------------------------------------------

case $DOMAIN in
# The README of adaptive kNN-MT (Zheng et al. 2021, arXiv 2105.13022) and the benchmark of knn-box. Table 9 of the
# paper has the temperatures of law and Koran the wrong way round (its author in knn-box, issue 1).
it)      K=8  LAMBDA=0.7 TEMPERATURE=10 ;;
medical) K=4  LAMBDA=0.8 TEMPERATURE=10 ;;
law)     K=4  LAMBDA=0.8 TEMPERATURE=10 ;;
koran)   K=16 LAMBDA=0.8 TEMPERATURE=100 ;;
# The README of kNN-models (cordercorder), tuned with beam 5 and length penalty 1, on a sample of the corpus.
subtitles) K=16 LAMBDA=0.5 TEMPERATURE=20 ;;
# Nothing is published: write it here, or tune.
*) K='' LAMBDA='' TEMPERATURE='' ;;
esac
TUNE=no     # yes: 5_tune.sh chooses k, lambda and temperature on the validation split, and these are used
NPROBE=32   # lists of the index that are searched, as in all those papers

# --- Neighbours, combiners that are trained ---------------------------------------------------------------------

# From knn-box's benchmark with this base model. k is the paper's one, too, for KSTER and robust kNN-MT; adaptive kNN-MT
# chose it for each domain among 4, 8, 16 and 32.
NOISE_BETA=''
case $COMBINER/$DOMAIN in
adaptive/it | adaptive/law) TRAIN_K=8 ;;
adaptive/medical | adaptive/koran) TRAIN_K=16 ;;
kernel_smoothed/*) TRAIN_K=16 ;;
robust/koran) TRAIN_K=8 NOISE_BETA=10 ;;
robust/*) TRAIN_K=8 NOISE_BETA=1000 ;;
*) TRAIN_K='' ;; # nothing is published: write it here
esac
# All other settings of training are in CONFIGS/COMBINER.yaml, with their sources; empty: those of this project.
CONFIGS=
# Options of fairseq-hydra-train that change some of them. A base that is no Transformer: (model._name=ARCHITECTURE).
# The published batch is that of one GPU; on 4: (dataset.batch_size=8), for KSTER ("optimization.update_freq=[9]").
TRAIN_OPTIONS=()

# --- Decoding, as published: move one of them and BLEU moves by up to two points -----------------------------------

BEAM=4
LENPEN=0.6
MAX_LEN_A=1.2   # at most 1.2 x source length + 10
MAX_LEN_B=10

# --- Machine ----------------------------------------------------------------------------------------------------

# Tokens in a batch: as many as fit. Must stay the same while a datastore is built: they move the last bits of keys.
BUILD_MAX_TOKENS=8000
DECODE_MAX_TOKENS=4096
# More options for every run of fairseq-generate; the same rule. On GPUs: (--fp16)
MODEL_OPTIONS=()

# Options of `fairseq-knn build-index`. For an index larger than memory: (--on-disk)
INDEX_OPTIONS=()

# --- Slurm; without it, one process does it all -------------------------------------------------------------------

BUILD_TASKS=4    # array tasks, each with a model of its own; more than there are shards (of 8192 sentences) idle
INDEX_TASKS=1    # more, for a large datastore: each adds a part of the keys to the index
DECODE_TASKS=2   # more than there are batches idle
MAX_RESTARTS=20  # how often a job that comes to its time limit puts itself into the queue again

# Options of sbatch. SBATCH_PARTITION, SBATCH_ACCOUNT and the like in the environment work too.
EVERY_JOB=()     # (--partition=NAME --account=NAME)
MODEL_JOBS=()    # build, tune, decode: (--gres=gpu:1 --cpus-per-task=8 --mem=64G --time=8:00:00)
TRAIN_JOB=()     # one node: (--gres=gpu:1 --cpus-per-task=8 --mem=64G --time=8:00:00)
INDEX_JOB=()     # (--cpus-per-task=32 --mem=128G --time=8:00:00)
