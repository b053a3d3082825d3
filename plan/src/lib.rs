//! The pure half of every kind.
