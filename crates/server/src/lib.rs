//! The binary: routes, pages, proxy, commands, jobs.

pub mod proxy;
