"""The tasks this package registers with fairseq; stock fairseq imports every module of this folder."""
