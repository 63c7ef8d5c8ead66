# shellcheck shell=bash disable=SC2034  # read by functions.sh
# What is the same for all folders on the toy cluster.
EVERY_JOB=(--partition=toy --cpus-per-task=1)
