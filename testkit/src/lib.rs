//! Builders and a simulator for tests.
