//! The program, started as people start it.

mod license;
