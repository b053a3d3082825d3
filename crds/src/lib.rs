//! The API types of Fairlead's kinds.
