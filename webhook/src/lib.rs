//! Admission over the validation of plan.
