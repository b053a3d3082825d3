//! Black-box tests on a real cluster.
