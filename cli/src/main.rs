//! The command line of Fairlead, a kubectl plugin.

fn main() {}
