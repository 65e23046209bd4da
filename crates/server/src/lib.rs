//! The binary: routes, pages, proxy, commands, jobs.

pub mod config;
pub mod demo;
pub mod pages;
pub mod proxy;
