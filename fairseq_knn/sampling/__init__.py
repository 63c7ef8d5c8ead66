"""What training sees how often: languages and sentences chosen by actors that learn which of them help.

Differentiable data selection (DDS: Wang et al. 2020, arXiv 1911.10088) and MultiDDS (Wang, Tsvetkov and Neubig 2020,
arXiv 2004.06748).
"""
