//! The effect half of every kind: one reconcile harness.
