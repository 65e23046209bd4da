//! The binary: routes, pages, proxy, commands, jobs.

pub mod cli;
pub mod config;
pub mod demo;
pub mod docs;
pub mod listener;
pub mod pages;
pub mod proxy;

mod idle;
