"""How a fairseq model is given neighbours, and the architectures this package registers."""
