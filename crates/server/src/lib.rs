//! The binary: routes, pages, proxy, commands, jobs.

pub mod config;
pub mod demo;
mod idle;
pub mod listener;
pub mod pages;
pub mod proxy;
